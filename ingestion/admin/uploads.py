"""Uploads: a file is sent by a form, goes into the lake while it arrives, and becomes a run."""

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from ingestion.admin.base import ReadOnly
from ingestion.admin.display import column, link_to, show_size
from ingestion.models import Pipeline, Priority, Run, Upload
from ingestion.ports.errors import ConfigError, IngestError
from ingestion.runs.start.pipelines import upload_kinds
from ingestion.runs.start.uploads import UploadReceiver, ingest_upload
from ingestion.toolkit.redact import redact

FILE = "file"
END = "end"
"""A hidden field after the file: a form that was cut off on its way does not have it."""


class LakeUploadHandler(FileUploadHandler):
    """Sends the form's file to the lake while it arrives; an expected error is kept for the page."""

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request)
        self.receiver: UploadReceiver | None = None
        self.error: IngestError | None = None

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        super().new_file(field_name, file_name, *args, **kwargs)
        if field_name == FILE and self.receiver is None:
            self._guard(lambda: self._open(file_name))

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if self.field_name == FILE and self.receiver is not None:
            receiver = self.receiver
            self._guard(lambda: receiver.write(raw_data))

    def file_complete(self, file_size: int) -> None:
        """Return nothing: the file lies in the lake, and is finished when the whole form has come."""

    def abort(self) -> None:
        """Keep nothing of the file."""
        if self.receiver is not None:
            self.receiver.abort()
            self.receiver = None

    def _open(self, file_name: str) -> None:
        self.receiver = UploadReceiver(file_name, created_by=self.request.user)  # type: ignore[union-attr]

    def _guard(self, act: Any) -> None:
        try:
            act()
        except IngestError as error:
            self.error = error
            # The rest is read and dropped: a browser shows the answer only after it has sent everything.
            raise StopUpload(connection_reset=False) from error


class UploadForm(forms.Form):
    """Fields that come with a file."""

    pipeline = forms.ModelChoiceField(
        Pipeline.objects.none(),
        required=False,
        help_text="Empty: one named after the data source, the contract or the file is found or made.",
    )
    datasource_name = forms.CharField(
        label="Data source name", required=False, max_length=200, help_text="Name of a new pipeline; may be left empty."
    )
    priority = forms.TypedChoiceField(
        choices=[("", "as the pipeline"), *Priority.choices], required=False, coerce=int, empty_value=None
    )
    contract = forms.CharField(
        required=False,
        strip=False,
        max_length=1 << 20,
        widget=forms.Textarea({"rows": 8, "cols": 80, "class": "hg-editor", "spellcheck": "false"}),
        help_text="YAML or JSON; empty: the pipeline's own, and for a new one a draft inferred from the data.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pipelines = cast("forms.ModelChoiceField[Pipeline]", self.fields["pipeline"])
        pipelines.queryset = Pipeline.objects.filter(source__kind__in=upload_kinds()).select_related(
            "source", "contract"
        )


@admin.register(Upload)
class UploadAdmin(ReadOnly):
    """Files that were sent."""

    list_display = ("name", "size", "created_by", "created_at", "runs_of")
    list_filter = ("created_at",)
    list_select_related = ("created_by",)
    search_fields = ("name", "=sha256")
    fields = ("name", "size", "sha256", "key", "created_by", "created_at", "runs_of")
    size = column("Size", lambda row: show_size(row.size_bytes), ordering="size_bytes")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may send files."""
        return request.user.has_perm("ingestion.add_upload")

    def get_urls(self) -> list[Any]:
        """Return the pages; the one that adds takes a file instead of a row."""
        return [
            path("add/", self.admin_site.admin_view(self._receiving_view()), name="ingestion_upload_add"),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upload]:
        """Return the uploads with their runs."""
        return super().get_queryset(request).prefetch_related("runs")

    def _receiving_view(self) -> Any:
        # The token stands in the body, and reading it receives the file: so the file's way must be laid before the
        # token is looked at, and what came without one is not kept.
        @csrf_exempt
        def view(request: HttpRequest) -> HttpResponse:
            if not self.has_add_permission(request):
                raise PermissionDenied
            handler = LakeUploadHandler(request)
            request.upload_handlers = [handler]
            try:
                return self.receive_view(request, handler)
            finally:
                handler.abort()

        return view

    @method_decorator(csrf_protect)
    def receive_view(self, request: HttpRequest, handler: LakeUploadHandler) -> HttpResponse:
        """Return the form, or the run of the file that was sent."""
        form = UploadForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            try:
                return self._accept(request, handler, form.cleaned_data)
            except IngestError as error:
                form.add_error("contract" if error.code == "contract.invalid" else None, redact(str(error)))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Upload a file",
            "form": form,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/ingestion/upload/send.html", context)

    def _accept(self, request: HttpRequest, handler: LakeUploadHandler, given: dict[str, Any]) -> HttpResponse:
        if handler.error is not None:
            raise handler.error
        receiver, handler.receiver = handler.receiver, None
        if receiver is None:
            raise ConfigError("upload.no_file")
        if END not in request.POST:
            receiver.abort()
            raise ConfigError("upload.incomplete", received="some", expected=request.META.get("CONTENT_LENGTH", "more"))
        upload, is_new = receiver.finish()
        if is_new:
            self.log_addition(request, upload, "Sent in the admin.")
        try:
            run, is_new_run = ingest_upload(
                upload,
                trigger=Run.Trigger.UPLOAD,
                pipeline=given["pipeline"],
                datasource_name=given["datasource_name"] or None,
                contract=given["contract"] if given["contract"].strip() else None,
                priority=given["priority"],
                may_configure=request.user.has_perms(("ingestion.add_contract", "ingestion.change_pipeline")),
            )
        except IngestError:
            self.message_user(
                request, f"{upload.name} is stored as upload {upload.pk}, but no run was made.", messages.WARNING
            )
            raise
        said = (
            "Its run was created." if is_new_run else "This file was read before by the same contract: here is its run."
        )
        self.message_user(request, f"{upload.name} was received. {said}", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:ingestion_run_change", args=(run.pk,)))

    @admin.display(description="Runs")
    def runs_of(self, upload: Upload) -> SafeString | str:
        """Return the runs that read it."""
        runs = sorted(upload.runs.all(), key=lambda run: run.pk)
        return format_html_join(", ", "{}", ((link_to(run),) for run in runs)) or "-"
