"""What a person looks at: results drawn over the footage, and a report of one page."""
