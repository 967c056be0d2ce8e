"""Reports: spend as recorded in journals, for people, spreadsheets and FinOps tools."""
