"""Names that several parts share."""

OPERATOR = "operator"
"""The first login of the admin, and Flower's."""
