"""Tokens: obtained with a password, rotated, revoked; one for each user."""

from typing import Any

from django.contrib.auth import authenticate
from django.db import transaction
from rest_framework import serializers, status
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import NotAuthenticated, Throttled
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import Strict, View, nothing, operation, validated
from ingestion.api.bodies import NO_BODY, FormParser, NothingParser, StrictJSONParser
from ingestion.api.permissions import PostWithoutLogin
from ingestion.api.problems import Problem
from ingestion.logins import TooManyAttempts
from ingestion.ports.errors import Refused


class CredentialsSerializer(Strict):
    """A user name and password."""

    username = serializers.CharField(max_length=150, trim_whitespace=False)
    password = serializers.CharField(max_length=4096, trim_whitespace=False, style={"input_type": "password"})


class TokenSerializer(serializers.Serializer[Any]):
    """A token and whose it is."""

    token = serializers.CharField()
    user = serializers.CharField()
    created_at = serializers.DateTimeField()


class TokensView(View):
    """Gives tokens for passwords."""

    permission_classes = (PostWithoutLogin,)
    parser_classes = (StrictJSONParser, FormParser, NothingParser)

    @operation(
        "tokens_obtain",
        "Obtain your token",
        description="The answer is the same for a wrong password and an unknown user. Ten wrong passwords a minute, fewer for who goes on.",
        request=CredentialsSerializer,
        responses=TokenSerializer,
    )
    def post(self, request: Request) -> Response:
        """Return the user's token, made if there is none."""
        if not request.data and not request.user.is_authenticated:
            raise NotAuthenticated
        given = validated(CredentialsSerializer, request)
        try:
            user = authenticate(request._request, **given)
        except TooManyAttempts as refused:
            raise Throttled(wait=refused.wait_s) from refused
        if user is None:
            raise Problem(401, Refused("request.credentials"), headers={"WWW-Authenticate": "Token"})
        token, _ = Token.objects.get_or_create(user=user)
        return _answer(token)


class RotateView(View):
    """Exchanges a token for a new one."""

    parser_classes = NO_BODY

    @operation("tokens_rotate", "Exchange your token for a new one", request=None, responses=TokenSerializer)
    def post(self, request: Request) -> Response:
        """Return the new token; the old one is worth nothing from now on."""
        validated(Strict, request)
        user: Any = request.user
        with transaction.atomic():
            Token.objects.filter(user=user).delete()
            token = Token.objects.create(user=user)
        return _answer(token)


class CurrentTokenView(View):
    """The token of whoever asks."""

    @operation("tokens_revoke", "Revoke your token", responses={204: nothing("It is worth nothing any more.")})
    def delete(self, request: Request) -> Response:
        """Revoke it."""
        user: Any = request.user
        Token.objects.filter(user=user).delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


def _answer(token: Token) -> Response:
    body = {"token": token.key, "user": token.user.get_username(), "created_at": token.created}
    return Response(body, headers={"Cache-Control": "no-store"})
