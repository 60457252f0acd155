"""The phase of a search that is told apart when a report says what is kept; apart so that no report imports torch."""

MEASURING = "measuring sensitivities"
