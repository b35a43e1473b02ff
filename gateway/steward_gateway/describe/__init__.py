"""The contracts described: OpenAPI 3.1, AsyncAPI 3 and a page to read and try them.

Everything follows from descriptors, their comments and the rules the gateway serves by. Made when
it is first asked for: a server that nobody reads of pays nothing. Start reading at openapi.py.
"""

from steward_gateway.describe.pages import description_pages

__all__ = ["description_pages"]
