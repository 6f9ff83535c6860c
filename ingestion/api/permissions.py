"""Permissions: users see and run, staff configure."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.request import Request


class StaffWrites(IsAuthenticated):
    """Every user may read, staff may write."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether this user may send this method."""
        if not super().has_permission(request, view):
            return False
        return request.method in SAFE_METHODS or bool(request.user.is_staff)


class PostWithoutLogin(IsAuthenticated):
    """POST is for everybody, everything else for users."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether this user may send this method."""
        return request.method == "POST" or super().has_permission(request, view)
