"""Pictures of scenes and answers, and the report page that shows them."""
