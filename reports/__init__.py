"""Reports: what journals say of money, for people, spreadsheets and FinOps tools."""
