# SPDX-License-Identifier: Apache-2.0
"""The HTTP server beneath all doors: cheroot, hardened, with what it promises to a WSGI application (PEP 3333).

Answers for HTTP/1.0 and 1.1, TLS, slow and hostile clients, processes and threads. Knows nothing of images.

What an application gets:

- `environ["wsgi.input"]` is strict: `read(n)`, `readinto(buffer)` (filled whole unless the body ends), `readline`,
  iteration. A body that does not come to its proper end raises `glancefs.errors.UploadTruncated` from the reading
  method, whether the client left, stalled, sent malformed chunks or the server was stopped; an end of file is the real
  end. `read()` without a size gives at most 16 MiB. `wsgi.input_terminated` is true for a chunked body.
- `100 Continue` goes out when the application first reads; one that answers without reading never asks for the body.
  `environ["glancefs.body_awaited"]` says whether the client waits for it.
- Among its byte chunks it may yield `gateway.http.sendfile.FileSlice(file, start, stop)`, which leaves by sendfile(2).
  `environ["wsgi.file_wrapper"]` does the same for a whole file.
- `environ["glancefs.header_fields"]` are the header lines as they came, ((name, value), ...) in bytes. Two headers
  whose names differ in a dash and an underscore alone are refused with 400 before any application sees them.
- `environ["glancefs.postpone"]` is there while a request may wait: `postpone(seconds)` says that the answer which the
  application is about to give is to go out only if nothing better comes within that time, counted from the first call.
  It gives a `gateway.http.waiting.Bell`; when that rings, the application is called anew. Meanwhile the request costs
  a dictionary entry and no thread. Only for requests without a body that change nothing.
- `REMOTE_ADDR`, `REMOTE_PORT`, `REQUEST_URI` (the raw target) and `wsgi.url_scheme` are set. PATH_INFO is
  percent-decoded, `%2F` too, and valid UTF-8 beneath its latin-1 dress; other paths are refused with 400.

What it may give back: `environ["glancefs.user"]` and `environ["glancefs.route"]`, set in the very dictionary that it
was called with, go into the access log and to the observer of requests; `environ["glancefs.subject"]` says what the
data are of, for who watches them pass.

A response that is shorter or longer than its Content-Length ends the connection and is logged as an error. An
exception is logged once with its traceback and answered with a 500 that tells nothing of it; an `UploadTruncated` that
the application lets pass is a 400.

Threading: an application is called from many threads at once.
"""
