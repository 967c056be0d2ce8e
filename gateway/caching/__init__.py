"""Replies that are kept to answer the same request again: keys, entries and their stores."""
