"""Images as they are asked for, like the nouns of resources.py."""

from __future__ import annotations

from typing import BinaryIO

from steward.environments.v1 import images_pb2
from steward.environments.v1.images_pb2_grpc import ImageServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, nothing, rpc
from steward_client.client.environments_files import TRANSFER_S, Pieces
from steward_client.client.environments_values import Image
from steward_client.client.values import value_of


class Images(Resource[Manner]):
    """What environments are made of, as far as the server keeps it itself."""

    @rpc
    def list(self) -> Call[tuple[Image, ...]]:
        """All images, by name."""
        return Call(
            ImageServiceStub,
            "ListImages",
            images_pb2.ListImagesRequest(),
            read=every(lambda answer: [value_of(Image, each) for each in answer.images]),
            repeatable=True,
        )

    @rpc
    def get(self, name: str) -> Call[Image]:
        """One image.

        Raises:
            NotFound: there is none; the message lists those there are.
        """
        return Call(
            ImageServiceStub,
            "GetImage",
            images_pb2.GetImageRequest(name=name),
            read=first(lambda answer: value_of(Image, answer.image)),
            repeatable=True,
        )

    @rpc
    def send(self, archive: bytes | BinaryIO, name: str = "") -> Call[Image]:
        """Send an archive, as `docker save` or `podman save` writes it, to be an image.

        Without a name it is called as the archive says. One of the same name is replaced. For
        administrators.

        Raises:
            InvalidRequest: it is no image, or none that is let in; the message says why.
            RateLimited: reason IMAGE_TOO_LARGE, DISK_FULL or TOO_MANY_IMPORTS.
        """
        return Call(
            ImageServiceStub,
            "ImportImage",
            Pieces(images_pb2.ImportImageRequest, images_pb2.ImportImageStart(name=name), archive),
            read=first(lambda answer: value_of(Image, answer.image)),
            takes_s=TRANSFER_S,
        )

    @rpc
    def remove(self, name: str) -> Call[None]:
        """Remove an image.

        Raises:
            Conflict: environments stand on it, or it is the machine's own.
        """
        request = images_pb2.RemoveImageRequest(name=name)
        return Call(ImageServiceStub, "RemoveImage", request, read=nothing)
