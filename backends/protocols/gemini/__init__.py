"""Google's Gemini API, and Vertex AI's of the same shape."""
