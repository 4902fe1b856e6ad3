"""A generated miniature of the challenge: ten small domains under the official names, ids and layout."""
