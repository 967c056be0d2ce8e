"""Forms are read without a change to any byte, and refused where readers might disagree."""

import pytest

from tollway.backends.bodies import multipart
from tollway.backends.bodies.form import Form
from tollway.backends.errors import BadRequest
from tollway.backends.types import Call

HEADERS = [(b"content-type", b'multipart/form-data; boundary="X y"')]
FILE = b"RIFF\r\n--X\r\n\r\n--X z\x00\xff"


def part(disposition: bytes, content: bytes, more: bytes = b"") -> bytes:
    head = b"Content-Disposition: form-data; " + disposition + b"\r\n" + more
    return b"--X y\r\n" + head + b"\r\n" + content + b"\r\n"


BODY = (
    part(b'name="model"', b"whisper")
    + part(b'name="file"; filename="a.wav"', FILE, b"Content-Type: audio/wav\r\n")
    + part(b"name=prompt", "grüße".encode())
    + part(b'name="g[]"', b"a")
    + part(b'name="g[]"', b"")
    + b"--X y--\r\n"
)


def read(body: bytes, headers: list[tuple[bytes, bytes]] = HEADERS) -> Form:
    return multipart.read(headers, body)


def test_fields_are_read_and_files_are_measured() -> None:
    form = read(b"preamble\r\n" + BODY + b"epilogue")
    size = {"bytes": len(FILE)}
    assert form.fields == {"model": "whisper", "file": size, "prompt": "grüße", "g[]": ["a", ""]}


def test_another_text_of_a_field_changes_no_other_byte() -> None:
    form = read(BODY)
    assert form.edited(BODY, {"model": "large-v3"}) == BODY.replace(b"whisper", b"large-v3")
    assert form.edited(BODY, {"missing": "x"}) == BODY
    assert read(form.edited(BODY, {"model": "x"})).fields == {**form.fields, "model": "x"}


def test_a_form_may_have_no_field() -> None:
    assert read(b"--X y--").fields == {}


@pytest.mark.parametrize("name", ["model", "file", "prompt", "g[]"])
def test_a_field_is_left_out_with_its_boundary(name: str) -> None:
    form = read(BODY)
    left = read(form.edited(BODY, {name: None})).fields
    assert left == {key: value for key, value in form.fields.items() if key != name}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--X y",
        b"--X",
        b"model=m",
        BODY.replace(b"--X y--", b""),
        BODY.replace(b"--X y\r\n", b"--X yz\r\n", 1),
        BODY.replace(b'name="model"', b'name=""'),
        BODY.replace(b'name="model"', b'name="model"; name="other"'),
        BODY.replace(b'name="model"', b"name*=utf-8''model"),
        BODY.replace(b'name="model"', b'filename="model"'),
        BODY.replace(b"; name", b";\r\n name", 1),
        BODY.replace(b"; name", b";\n name", 1),
        BODY.replace(b"whisper", b"\xff"),
        part(b'name="a"', b"")[:-2].replace(b"\r\n\r\n", b"\r\n\r\n--X y\r\n") + BODY,
        part(b'name="a"', b"a" * (multipart.TEXT_BYTES_MAX + 1)) + BODY,
        part(b'name="a' + b"a" * multipart.HEAD_BYTES_MAX + b'"', b"") + BODY,
        part(b'name="a"', b"") * (multipart.PARTS_MAX + 1) + BODY,
        part(b'name="a"\r\nContent-Disposition: form-data; name="b"', b"") + BODY,
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body)


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary="a\r\nb"',
        b"multipart/form-data; boundary=" + b"a" * 71,
        b"multipart/form-data; boundary=a; boundary=b",
        b"multipart/form-data; boundary=\xff",
    ],
)
def test_a_form_needs_one_sound_boundary(kind: bytes) -> None:
    with pytest.raises(BadRequest):
        read(BODY, [(b"content-type", kind)])


def test_a_large_form_is_read_a_slice_at_a_time_with_boundaries_across_slices() -> None:
    near = b"\r\n--X " * 8  # begins like the boundary
    for size in range(multipart.SLICE_BYTES - 12, multipart.SLICE_BYTES + 12):
        body = part(b'name="a"; filename="a"', near + b"x" * (size + multipart.SLICE_BYTES)) + BODY
        work = multipart.slices(HEADERS, body)
        paused = 0
        while True:
            try:
                next(work)
            except StopIteration as end:
                form = end.value
                break
            paused += 1
        assert paused >= 2
        assert form.fields["a"] == {"bytes": len(near) + size + multipart.SLICE_BYTES}
        assert form == read(body)


def test_the_form_that_was_read_in_slices_is_not_read_again() -> None:
    body = part(b'name="a"', b"1") + BODY
    call = Call(b"POST", b"/", HEADERS, body)
    assert multipart.of(call) == read(body)
    call.form = Form({"b": "2"}, (), b"")
    assert multipart.of(call) is call.form
    call.form = BadRequest("the form is broken")
    with pytest.raises(BadRequest, match="is broken"):
        multipart.of(call)
