"""ImageService: translates between protos and the catalogue of images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from steward.environments.v1 import images_pb2 as pb
from steward.environments.v1 import images_pb2_grpc as rpc
from steward_server.audit import Change, record
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.completion import complete
from steward_server.db import Database
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.driver import Away, Unusable
from steward_server.environments.images.image import SNAPSHOTS, canonical
from steward_server.environments.needs import Image, Images
from steward_server.environments.sending import first_of, pieces_of, taken
from steward_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StewardError,
    Unavailable,
)

_MAX_NAME = 512
MAX_IMPORTS = 2
"""At a time, on their way or being unpacked."""


class ImageService(rpc.ImageServiceServicer):
    """Serves images to people."""

    def __init__(
        self,
        database: Database,
        images: Images | None,
        config: EnvironmentsConfig,
        clock: Callable[[], int],
    ) -> None:
        """Take settings, which are read once.

        Raises:
            BadSetting: an amount in them cannot be read.
        """
        self._most_bytes = config.image_archive_bytes()
        self._importing = 0
        self._database = database
        self._images = images
        self._clock = clock

    async def ListImages(
        self,
        request: pb.ListImagesRequest,  # noqa: ARG002 - the shape of a servicer
        context: Context,  # noqa: ARG002
    ) -> pb.ListImagesResponse:
        try:
            found = await self._catalogue().list()
        except Unusable as error:
            raise _refusal(error, "") from None
        return pb.ListImagesResponse(
            images=[_image(each) for each in found if not each.name.startswith(SNAPSHOTS)]
        )

    async def GetImage(
        self,
        request: pb.GetImageRequest,
        context: Context,  # noqa: ARG002 - the shape of a servicer
    ) -> pb.GetImageResponse:
        _check(request.name)
        try:
            found = await self._catalogue().find(request.name)
        except Unusable as error:
            raise _refusal(error, request.name) from None
        return pb.GetImageResponse(image=_image(found))

    async def RemoveImage(
        self, request: pb.RemoveImageRequest, context: Context
    ) -> pb.RemoveImageResponse:
        _check(request.name)
        images = self._catalogue()
        now_us, who = self._clock(), caller(context)

        async def remove() -> None:
            found = await images.find(request.name)
            await images.remove(request.name)
            change = Change("image.removed", found.name, before={"digest": found.digest})
            await self._database.run(lambda transaction: record(transaction, now_us, who, change))

        try:
            await complete(remove())
        except Unusable as error:
            raise _refusal(error, request.name) from None
        return pb.RemoveImageResponse()

    async def ImportImage(
        self, request_iterator: AsyncIterator[pb.ImportImageRequest], context: Context
    ) -> pb.ImportImageResponse:
        start = (await first_of(request_iterator, "start")).start
        with Checks() as checks:
            checks.text("name", start.name, 0, _MAX_NAME)
        images, who = self._catalogue(), caller(context)
        if self._importing >= MAX_IMPORTS:
            raise ResourceExhausted(
                f"{MAX_IMPORTS} images are on their way; no more are taken at a time",
                reason="TOO_MANY_IMPORTS",
            )

        async def take(pieces: AsyncIterator[bytes]) -> Image:
            made = await images.receive(pieces, name=start.name, most_bytes=self._most_bytes)
            after = {"digest": made.digest, "size_bytes": made.size_bytes}
            change, now_us = Change("image.imported", made.name, after=after), self._clock()
            await self._database.run(lambda transaction: record(transaction, now_us, who, change))
            return made

        self._importing += 1
        try:
            made = await taken(pieces_of(request_iterator), take)
        except Unusable as error:
            raise _refusal(error, start.name) from None
        finally:
            self._importing -= 1
        return pb.ImportImageResponse(image=_image(made))

    def _catalogue(self) -> Images:
        if self._images is None:
            raise FailedPrecondition(
                "the driver of this server keeps no images of its own", reason="NOT_SUPPORTED"
            )
        return self._images


def _check(name: str) -> None:
    with Checks() as checks:
        checks.text("name", name, 1, _MAX_NAME)
    with suppress(Unusable):  # no name of any image: whoever looks for it says so
        if canonical(name).startswith(SNAPSHOTS):
            raise NotFound(
                f"{name!r} is no image; GET /api/v1/snapshots lists what you keep of environments",
                reason="IMAGE_NOT_FOUND",
                facts={"image": name},
            )


def _refusal(error: Unusable, name: str) -> StewardError:
    if isinstance(error, Away):
        return Unavailable(str(error), reason=error.reason)
    if error.reason == "UNKNOWN_IMAGE":
        return NotFound(str(error), reason="IMAGE_NOT_FOUND", facts={"image": name})
    if error.reason == "BAD_IMAGE_NAME":
        return InvalidArgument(str(error), reason=error.reason, fields={"name": str(error)})
    if error.reason == "BAD_IMAGE":
        return InvalidArgument(str(error), reason=error.reason)
    if error.reason in ("IMAGE_TOO_LARGE", "DISK_FULL"):
        return ResourceExhausted(str(error), reason=error.reason, facts={"image": name})
    return FailedPrecondition(str(error), reason=error.reason, facts={"image": name})


def _image(image: Image) -> pb.Image:
    return pb.Image(
        name=image.name,
        digest=image.digest,
        size_bytes=image.size_bytes,
        created_at=timestamp(image.created_at_us),
        command=image.command,
        working_dir=image.working_dir,
        user=image.user,
        is_host=image.is_host,
    )
