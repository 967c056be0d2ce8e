"""The units of usage: one table.

Readers of usage, prices, journal rows, metrics, reports and the FOCUS export iterate over it, so a
new unit is a new row here. The units of `HOT` are fields of `tollway.backends.types.Usage`, which
the request path creates for every call; all others are in `Usage.more`, and only where they occur.

A unit may be a part of another: cached tokens are input tokens. It is then counted in both, and
charged once, at its own price. A unit without a price of its own costs `times` the price of the
unit that it is part of, or what `priced_as` costs; if that is only a guess (`guessed`), the cost is
marked `estimated`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of usage.

    name: in journal rows, reports and `usage` members. text: for people (`a million ...`).
    price_key: its key in a price table, for the price of `per` of it; `like`: an example. part_of,
    times, priced_as, guessed: see above. usd: the guessed price of `per` of them, if it has no
    price and is part of nothing. column: its name in the FOCUS export.
    """

    name: str
    text: str
    column: str
    price_key: str = ""
    per: int = 1
    like: str = ""
    part_of: str = ""
    times: float = 1.0
    priced_as: str = ""
    guessed: bool = False
    usd: str = ""
    metric: str = ""

    @property
    def metric_name(self) -> str:
        """Its name in Prometheus, without `tollway_` and `_total`."""
        return self.metric or self.name


M = 1_000_000

HOT = ("calls", "device_s", "input_tokens", "cached_input_tokens", "output_tokens")
"""The fields of `Usage`, in order; a test holds them equal."""

UNITS: tuple[Unit, ...] = (
    Unit("calls", "requests", "Requests", "per_request_usd", 1, "0.0001"),
    # Its price is per hour of a device that calls share: see `tollway.backends.pricing`.
    Unit("device_s", "device-seconds", "DeviceSeconds", metric="device_seconds"),
    Unit("input_tokens", "input tokens", "InputTokens", "input_usd_per_mtok", M, "0.15"),
    Unit(
        "cached_input_tokens",
        "cached input tokens",
        "CachedInputTokens",
        "cached_input_usd_per_mtok",
        M,
        "0.075",
        part_of="input_tokens",
    ),
    Unit("output_tokens", "output tokens", "OutputTokens", "output_usd_per_mtok", M, "0.60"),
    # 1.25 and 2: Anthropic's prices of cache writes over input, and of 272 of the 325 models in
    # genai-prices 0.2.3 that have one.
    Unit(
        "cache_write_5m_tokens",
        "tokens written to a cache for 5 minutes",
        "CacheWrite5mTokens",
        "cache_write_5m_usd_per_mtok",
        M,
        "0.1875",
        part_of="input_tokens",
        times=1.25,
    ),
    Unit(
        "cache_write_1h_tokens",
        "tokens written to a cache for an hour",
        "CacheWrite1hTokens",
        "cache_write_1h_usd_per_mtok",
        M,
        "0.30",
        part_of="input_tokens",
        times=2.0,
    ),
    Unit(
        "reasoning_tokens",
        "reasoning tokens",
        "ReasoningTokens",
        "reasoning_usd_per_mtok",
        M,
        "0.60",
        part_of="output_tokens",
    ),
    # 16, 8, 12: what gpt-4o-audio and gemini-2.5-flash-image charge over text. Others charge from
    # 1.25 to 57 times as much, so these are guesses. Images and video that are read cost as much as
    # text with Gemini and xAI; gpt-image-1, which charges twice as much, lists a price for them.
    Unit(
        "audio_input_tokens",
        "audio input tokens",
        "AudioInputTokens",
        "audio_input_usd_per_mtok",
        M,
        "2.50",
        part_of="input_tokens",
        times=16.0,
        guessed=True,
    ),
    Unit(
        "audio_output_tokens",
        "audio output tokens",
        "AudioOutputTokens",
        "audio_output_usd_per_mtok",
        M,
        "5.00",
        part_of="output_tokens",
        times=8.0,
        guessed=True,
    ),
    Unit(
        "image_input_tokens",
        "image input tokens",
        "ImageInputTokens",
        "image_input_usd_per_mtok",
        M,
        "0.30",
        part_of="input_tokens",
        guessed=True,
    ),
    Unit(
        "image_output_tokens",
        "image output tokens",
        "ImageOutputTokens",
        "image_output_usd_per_mtok",
        M,
        "7.20",
        part_of="output_tokens",
        times=12.0,
        guessed=True,
    ),
    Unit(
        "video_input_tokens",
        "video input tokens",
        "VideoInputTokens",
        "video_input_usd_per_mtok",
        M,
        "0.30",
        part_of="input_tokens",
        guessed=True,
    ),
    Unit(
        "cached_audio_input_tokens",
        "cached audio input tokens",
        "CachedAudioInputTokens",
        "cached_audio_input_usd_per_mtok",
        M,
        "0.40",
        part_of="input_tokens",
        priced_as="audio_input_tokens",
        guessed=True,
    ),
    Unit(
        "cached_image_input_tokens",
        "cached image input tokens",
        "CachedImageInputTokens",
        "cached_image_input_usd_per_mtok",
        M,
        "2.50",
        part_of="input_tokens",
        priced_as="image_input_tokens",
        guessed=True,
    ),
    # 0.01 and 0.0025: what OpenAI charges for a web search (Anthropic too) and a search in files.
    # 0.36: OpenAI's whisper-1. 0.001: Mistral's OCR.
    Unit("searches", "searches", "Searches", "per_search_usd", 1, "0.01", usd="0.01"),
    Unit(
        "file_searches",
        "file searches",
        "FileSearches",
        "per_file_search_usd",
        1,
        "0.0025",
        usd="0.0025",
    ),
    Unit("images", "images", "Images", "per_image_usd", 1, "0.04"),
    Unit(
        "audio_s",
        "seconds of audio",
        "AudioSeconds",
        "audio_usd_per_hour",
        3600,
        "0.36",
        usd="0.36",
    ),
    Unit("characters", "characters", "Characters", "per_mchar_usd", M, "15"),
    Unit("pages", "pages", "Pages", "per_page_usd", 1, "0.001", usd="0.001"),
)

BY_NAME = {unit.name: unit for unit in UNITS}

MORE: tuple[Unit, ...] = tuple(unit for unit in UNITS if unit.name not in HOT)
"""The units that are not fields of `Usage`."""

MORE_NAMES = frozenset(unit.name for unit in MORE)
