"""Many runs in one request; each has its own answer."""

from collections.abc import Callable
from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import Strict, View, operation, validated
from ingestion.api.problems import describe
from ingestion.api.runs import MAX_KEY_CHARACTERS, RunRequestSerializer, RunSerializer, run_answer, start_run
from ingestion.ports.errors import IngestError
from ingestion.runs.deliver.cancellation import cancel_run

MAX_RUNS = 100


class BulkItemSerializer(RunRequestSerializer):
    """One of the runs that are asked for."""

    idempotency_key = serializers.CharField(required=False, max_length=MAX_KEY_CHARACTERS)


class BulkRequestSerializer(Strict):
    """The runs that are asked for."""

    runs = serializers.ListField(child=BulkItemSerializer(), allow_empty=False, max_length=MAX_RUNS)


class IdsSerializer(Strict):
    """The numbers of some runs."""

    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1), allow_empty=False, max_length=MAX_RUNS
    )


class OutcomeSerializer(serializers.Serializer[Any]):
    """Answer for one of them: the run, or the problem."""

    status = serializers.IntegerField(help_text="What the request for this one alone would have been answered.")
    run = RunSerializer(required=False)
    problem = serializers.DictField(required=False)


class OutcomesSerializer(serializers.Serializer[Any]):
    """Answers for each, in the order they were asked for."""

    results = OutcomeSerializer(many=True)


class BulkCreateView(View):
    """Asks for many runs."""

    @operation(
        "runs_bulk_create", "Ask for many runs", request=BulkRequestSerializer, responses={207: OutcomesSerializer}
    )
    def post(self, request: Request) -> Response:
        """Return for each what became of it; one that is refused does not keep the others back."""
        asked = validated(BulkRequestSerializer, request)["runs"]

        def create(item: dict[str, Any]) -> Response:
            run, is_new = start_run(item, request=request, key=item.get("idempotency_key"))
            return run_answer(request, run, status_code=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK)

        return _outcomes([_outcome(create, item) for item in asked])


class BulkCancelView(View):
    """Cancels many runs."""

    @operation("runs_bulk_cancel", "Cancel many runs", request=IdsSerializer, responses={207: OutcomesSerializer})
    def post(self, request: Request) -> Response:
        """Return for each what became of it."""
        by = request.user.get_username()
        ids = validated(IdsSerializer, request)["ids"]
        return _outcomes([_outcome(lambda run_id: run_answer(request, cancel_run(run_id, by=by)), pk) for pk in ids])


def _outcome(do: Callable[[Any], Response], item: Any) -> dict[str, Any]:
    try:
        response = do(item)
    except IngestError as error:
        problem = describe(error)
        return {"status": problem.status, "problem": problem.body()} if problem else {}
    return {"status": response.status_code, "run": response.data}


def _outcomes(outcomes: list[dict[str, Any]]) -> Response:
    return Response({"results": outcomes}, status=status.HTTP_207_MULTI_STATUS)
