"""Names that several services share."""

OPERATOR = "operator"
"""The first login of the admin, and Flower's."""
