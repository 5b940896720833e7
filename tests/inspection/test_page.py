"""The page, driven in a browser: type, mask, sample, edit, hover; and its server, which minds who asks and how much."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from werkzeug.test import Client, TestResponse

from browser import Tab, browser  # noqa: F401 - fixture
from factories import encoder_config, joint_config
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.span_masking import SpanMaskingPolicy
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.inspection.beliefs import look
from spanelectra.inspection.opening import InspectedModel, open_for_inspection
from spanelectra.inspection.page import BURST, MAX_CHARACTERS, InspectorPage, make_page_server
from spanelectra.inspection.picture import Picture
from spanelectra.inspection.token_texts import visible
from spanelectra.schedules import Schedule
from test_export import write_run

TEXT = "The names in the module are a list of the names in the file."
HOSTILE = "<img src=x onerror=alert(1)> &amp;"


@pytest.fixture(scope="module")
def inspected(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> InspectedModel:
    """A tiny joint model, opened from a run."""
    run = tmp_path_factory.mktemp("inspected") / "run"
    write_run(run, load_tokenizer(rows / "tokenizer"), joint_config())
    return open_for_inspection(run)


@contextmanager
def serve(inspected: InspectedModel, text: str = TEXT) -> Iterator[str]:
    """The page on a free port, in a thread of this process."""
    server = make_page_server(inspected, text, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/"
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address(inspected: InspectedModel) -> Iterator[str]:
    with serve(inspected) as address:
        yield address


def open_page(browser: Any, address: str, width: int = 1280) -> Tab:  # noqa: F811
    """A tab with the page and its first picture."""
    tab = Tab(browser, width)
    tab.page.goto(address)
    settle(tab)
    return tab


def settle(tab: Tab) -> None:
    """Wait until the answer to the last action is shown."""
    tab.page.wait_for_selector("body:not([aria-busy]) .token")


def act(tab: Tab, action: Any) -> None:
    """Do something that asks the server, and wait for what it answers."""
    with tab.page.expect_response(lambda response: response.url.endswith("/look")):
        action()
    settle(tab)


def shown_beliefs(tab: Tab, head: str) -> list[float | None]:
    """What the page says that a head believes of each token."""
    script = f"(tokens) => tokens.map((token) => token.dataset.{head} ?? null)"
    values = tab.page.eval_on_selector_all(".token", script)
    return [None if value is None else float(value) for value in values]


def shown_tokens(tab: Tab) -> list[str]:
    return tab.page.eval_on_selector_all(".token .now", "(tokens) => tokens.map((token) => token.textContent)")


def assert_shows(tab: Tab, picture: Picture) -> None:
    """The page shows a picture's tokens, candidates and beliefs."""
    assert shown_tokens(tab) == [visible(token.text) for token in picture.tokens]
    for head in ("ato", "sbpo"):
        expected = [getattr(token, head) for token in picture.tokens]
        assert shown_beliefs(tab, head) == [
            None if value is None else pytest.approx(value, abs=1e-5) for value in expected
        ]
    for head in ("mlm", "sbgo"):
        shown = tab.page.eval_on_selector_all(
            f".pick[data-head={head}]",
            "(picks) => picks.map(({dataset: {position, token, probability}}) => [position, token, probability])",
        )
        expected = [(fill.position, best) for fill in picture.fills for best in getattr(fill, head)]
        assert [(int(position), int(token)) for position, token, _ in shown] == [
            (position, best.token_id) for position, best in expected
        ]
        assert [float(row[2]) for row in shown] == pytest.approx([best.probability for _, best in expected], abs=1e-5)


@torch.no_grad()
def test_the_first_numbers_are_the_models_own(inspected: InspectedModel, browser: Any, address: str) -> None:  # noqa: F811
    """Against the collator of training and the model's forward pass."""
    tab = open_page(browser, address)
    collator = DataCollatorForSpanElectra(
        input_ids=np.array([inspected.tokenizer(TEXT)["input_ids"]]),
        word_starts=inspected.word_starts,
        policy=SpanMaskingPolicy(mask_ratio=0.25, max_span_length=inspected.model.config.max_span_length),
        mask_token_id=inspected.tokenizer.mask_token_id,
        seed=0,
        mask_ratio=Schedule.parse(0.25, "mask_ratio"),
        max_span_words=Schedule.parse(10, "max_span_words"),
    )
    batch = collator(RowBatch(np.array([0]), np.array([0]), 1.0))
    output = inspected.model(**batch)
    assert shown_beliefs(tab, "ato") == pytest.approx(output.ato_logits[0].sigmoid().tolist(), abs=1e-5)
    shown = tab.page.evaluate("picture.tokens.map((token) => token.token_id)")
    assert shown == output.corrupted_ids[0].tolist()
    scored = batch["labels"][0] >= 0
    masked = batch["masked_positions"][0][scored].tolist()
    sbpo = output.sbpo_logits[0][: len(scored)][scored].sigmoid().tolist()
    assert [shown_beliefs(tab, "sbpo")[position] for position in masked] == pytest.approx(sbpo, abs=1e-5)
    for slot, position in enumerate(masked):
        for head, logits in (("mlm", output.mlm_logits), ("sbgo", output.sbgo_logits)):
            shown = tab.page.eval_on_selector_all(
                f".pick[data-head={head}][data-position='{position}']",
                "(picks) => picks.map((pick) => Number(pick.dataset.probability))",
            )
            assert shown == pytest.approx(logits[0, slot].softmax(-1).topk(5).values.tolist(), abs=1e-5)
    assert tab.complaints == []


def test_type_mask_sample_pick_and_edit(inspected: InspectedModel, browser: Any, address: str) -> None:  # noqa: F811
    tab = open_page(browser, address)
    page, text = tab.page, "The list of the names in the module is a file."
    page.fill("#text", text)
    act(tab, lambda: page.click("#reader .main"))
    assert_shows(tab, look(inspected, text, []))
    assert page.locator(".pick").count() == 0

    for word in (2, 3, 6):
        act(tab, lambda word=word: page.click(f".word[data-word='{word}']"))
        assert page.get_attribute(f".word[data-word='{word}']", "aria-pressed") == "true"
    assert_shows(tab, look(inspected, text, [2, 3, 6]))
    act(tab, lambda: page.click(".word[data-word='6']"))
    assert page.get_attribute(".word[data-word='6']", "aria-pressed") == "false"
    assert_shows(tab, look(inspected, text, [2, 3]))

    act(tab, lambda: page.click("#sample"))
    seed = page.evaluate("state.seed")
    picture = look(inspected, text, [2, 3], seed=seed)
    assert seed != 0
    assert_shows(tab, picture)

    position, best = picture.fills[0].position, picture.fills[0].mlm[2]
    act(tab, lambda: page.click(f".pick[data-head=mlm][data-position='{position}'][data-token='{best.token_id}']"))
    assert_shows(tab, look(inspected, text, [2, 3], seed=seed, chosen={position: best.token_id}))
    assert page.locator(f".pick[data-position='{position}'][aria-pressed=true]").count() >= 1

    edited = len(picture.tokens) - 3
    page.click(f".token[data-position='{edited}']")
    page.fill("#typed", "module")
    act(tab, lambda: page.click("#editor .main"))
    module = inspected.texts.token_id("module", picture.tokens[edited].original)
    chosen = {position: best.token_id, edited: module}
    after = look(inspected, text, [2, 3], seed=seed, chosen=chosen)
    assert_shows(tab, after)
    assert after.tokens[edited].ato != picture.tokens[edited].ato
    assert f"Token {edited} is now “module”" in page.inner_text("#status")

    act(tab, lambda: page.click("#undo"))
    assert_shows(tab, look(inspected, text, [2, 3], seed=seed, chosen={position: best.token_id}))
    act(tab, lambda: page.click("#likeliest"))
    likeliest = {fill.position: fill.mlm[0].token_id for fill in picture.fills}
    assert_shows(tab, look(inspected, text, [2, 3], seed=seed, chosen=likeliest))
    act(tab, lambda: page.click("#random"))
    seed = page.evaluate("state.seed")
    assert_shows(tab, look(inspected, text, seed=seed))
    assert tab.complaints == []


def test_numbers_appear_where_one_points(inspected: InspectedModel, browser: Any, address: str) -> None:  # noqa: F811
    tab = open_page(browser, address)
    picture = look(inspected, TEXT)
    token = picture.tokens[4]
    tip = tab.page.locator(".token[data-position='4'] .tip")
    assert not tip.is_visible()
    tab.page.hover(".token[data-position='4']")
    assert tip.is_visible()
    numbers = tip.inner_text().replace("\u00a0", " ")
    assert f"ATO {100 * token.ato:.1f} %" in numbers and f"SBPO {100 * token.sbpo:.1f} %" in numbers
    # and for those who do not see it
    spoken = tab.page.locator(".tokens").aria_snapshot()
    assert f"{token.text.strip()} ATO {100 * token.ato:.0f} % SBPO {100 * token.sbpo:.0f} %" in spoken
    assert tab.page.get_attribute(".token[data-position='4']", "aria-describedby") == tip.get_attribute("id")


def test_everything_is_done_by_keyboard(inspected: InspectedModel, browser: Any, address: str) -> None:  # noqa: F811
    tab = open_page(browser, address)
    keyboard = tab.page.keyboard

    def focused(name: str) -> str | None:
        return tab.page.evaluate(f"document.activeElement.dataset.{name} ?? null")

    tab.page.focus("#text")
    keyboard.press("Control+A")
    keyboard.type("The names in the file are a list of names.")
    act(tab, lambda: keyboard.press("Control+Enter"))
    keyboard.press("Tab")
    keyboard.press("Tab")
    assert focused("word") == "0"
    for _ in range(3):
        keyboard.press("ArrowRight")
    act(tab, lambda: keyboard.press("Space"))
    assert focused("word") == "3" and tab.page.evaluate("state.masked_words") == [3]
    # past the buttons below the words, the verdicts on the tokens and their table
    for _ in range(6):
        keyboard.press("Tab")
    assert focused("head") == "mlm"
    keyboard.press("End")
    assert focused("head") == "sbgo"
    act(tab, lambda: keyboard.press("Enter"))
    assert focused("head") == "sbgo"
    for _ in range(2):
        keyboard.press("Shift+Tab")
    assert focused("position") == "0"
    for _ in range(2):
        keyboard.press("ArrowRight")
    tip = tab.page.locator(".token[data-position='2'] .tip")
    assert focused("position") == "2" and tip.is_visible()
    keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "typed"
    keyboard.type("module")
    act(tab, lambda: keyboard.press("Enter"))
    assert shown_tokens(tab)[2] == "module"
    keyboard.press("Escape")
    assert focused("position") == "2" and not tab.page.is_visible("#editor")
    assert tab.complaints == []


def test_what_is_typed_is_text(browser: Any, address: str) -> None:  # noqa: F811
    tab = open_page(browser, address)
    tab.page.on("dialog", lambda dialog: tab.complaints.append(dialog.message))
    tab.page.fill("#text", HOSTILE)
    act(tab, lambda: tab.page.click("#reader .main"))
    act(tab, lambda: tab.page.click(".word[data-word='1']"))
    words = "".join(tab.page.eval_on_selector_all(".word", "(words) => words.map((word) => word.textContent)"))
    assert words == HOSTILE.replace(" ", "")
    assert tab.page.locator("main img, main script").count() == 0
    tab.page.click(".token[data-position='2']")
    tab.page.fill("#typed", "<b>x</b>")
    act(tab, lambda: tab.page.click("#editor .main"))
    assert "'<b>x</b>' is no single token" in tab.page.inner_text("#error")
    # the browser itself reports the refusal
    assert [complaint for complaint in tab.complaints if "400" not in complaint] == []


def test_the_picture_is_downloaded(inspected: InspectedModel, browser: Any, address: str, tmp_path: Path) -> None:  # noqa: F811
    tab = open_page(browser, address)
    for name in ("html", "png"):
        with tab.page.expect_download() as download:
            tab.page.click(f"#download-{name}")
        download.value.save_as(tmp_path / f"picture.{name}")
    page = (tmp_path / "picture.html").read_text(encoding="utf-8")
    assert "<script" not in page and "http" not in page
    saved = Tab(browser)
    saved.page.goto((tmp_path / "picture.html").as_uri())
    expected = [token.ato for token in look(inspected, TEXT).tokens]
    assert shown_beliefs(saved, "ato") == pytest.approx(expected, abs=1e-5)
    image = (tmp_path / "picture.png").read_bytes()
    assert image.startswith(b"\x89PNG") and int.from_bytes(image[16:20], "big") == 2304
    # more than one colour
    assert len(image) > 20_000
    assert tab.complaints == saved.complaints == []


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_is_accessible(width: int, browser: Any, address: str) -> None:  # noqa: F811
    tab = open_page(browser, address, width)
    assert not tab.is_wider_than_its_window()
    last = tab.page.locator(".token").last
    last.hover()
    assert last.locator(".tip").is_visible() and not tab.is_wider_than_its_window()
    tab.page.click(".token[data-position='3']")
    tab.page.click("summary")
    assert not tab.is_wider_than_its_window()
    assert tab.accessibility_findings() == []


def test_what_would_be_put_back_follows_the_tokens(
    inspected: InspectedModel,
    rows: Path,
    browser: Any,  # noqa: F811
    address: str,
    tmp_path: Path,
) -> None:
    assert not open_page(browser, address).page.is_visible("#corrections-heading")
    write_run(
        tmp_path / "run",
        load_tokenizer(rows / "tokenizer"),
        joint_config(objectives=["mlm", "ato", "correction"]),
    )
    corrector = open_for_inspection(tmp_path / "run")
    with serve(corrector) as other:
        tab = open_page(browser, other)
        act(tab, lambda: tab.page.click("#clear"))
        assert tab.page.is_visible("#corrections-heading") and tab.page.inner_text("#corrections") == ""
        act(tab, lambda: tab.page.click(".word[data-word='2']"))
        picture = look(corrector, TEXT, [2])
        shown = tab.page.eval_on_selector_all(
            "#corrections small", "(places) => places.map((place) => place.innerText)"
        )
        assert [int(place) for place in shown] == [correction.position for correction in picture.corrections]
        assert tab.accessibility_findings() == []


def test_a_discriminator_alone_is_edited_by_hand(
    rows: Path,
    browser: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = SpanElectraConfig(discriminator_config=encoder_config("electra"), objectives=["ato"], sharing="none")
    write_run(tmp_path / "run", load_tokenizer(rows / "tokenizer"), config)
    inspected = open_for_inspection(tmp_path / "run")
    with serve(inspected) as address:
        tab = open_page(browser, address)
        assert "no generator" in tab.page.inner_text("#notices") and "no SBPO" in tab.page.inner_text("#notices")
        assert not tab.page.is_visible("#candidates") and not tab.page.is_visible("#sample")
        act(tab, lambda: tab.page.click("#clear"))
        tab.page.click(".token[data-position='3']")
        tab.page.fill("#typed", "of")
        act(tab, lambda: tab.page.press("#typed", "Enter"))
        assert_shows(tab, look(inspected, TEXT, [], chosen={3: inspected.texts.token_id("of", " in")}))
        assert tab.complaints == []


def ask(client: Client, path: str = "/look", headers: dict[str, str] | None = None, **question: Any) -> TestResponse:
    return client.post(path, json=question, headers=headers, base_url="http://127.0.0.1:8765")


def error_of(response: TestResponse) -> str:
    return json.loads(response.text)["error"]


@pytest.fixture
def client(inspected: InspectedModel) -> Client:
    return Client(InspectorPage(inspected, TEXT))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"text": "x" * (MAX_CHARACTERS + 1)}, "at most 10,000 are taken"),
        ({"text": ""}, "the text is empty"),
        ({"text": "names"}, "too few to mask a span"),
        ({"text": "half \ud83d an emoji"}, "the text holds half a character"),
        ({"text": TEXT, "masked_words": [99]}, "there is no word 99"),
        ({"text": TEXT, "masked_words": [True]}, "masked_words is not a list of whole numbers"),
        ({"text": TEXT, "masked_words": list(range(9))}, "a span has"),
        ({"text": TEXT, "mask_ratio": 2}, "mask_ratio 2"),
        ({"text": TEXT, "seed": "0"}, "seed is of the wrong type"),
        ({"text": TEXT, "chosen": {"0": 5}}, "there is no token 0 to replace"),
        ({"text": TEXT, "chosen": {"1": 10**9}}, "there is no token with the id"),
        ({"text": TEXT, "chosen": {"x": 1}}, "chosen does not map positions"),
        ({"text": TEXT, "typed": {"position": 0, "text": "a"}}, "token 0 cannot be edited"),
        ({"text": TEXT, "typed": {"position": 1, "text": " "}}, "type a token"),
        ({"text": TEXT, "typed": {"position": 1, "text": "[MASK]"}}, "no single token"),
    ],
)
def test_a_wrong_question_is_answered_in_words(question: dict[str, Any], message: str, client: Client) -> None:
    response = ask(client, **question)
    assert response.status_code == 400 and message in error_of(response)


def test_only_the_own_page_on_this_machine_may_ask(client: Client) -> None:
    assert ask(client, text=TEXT).status_code == 200
    assert ask(client, text=TEXT, headers={"Origin": "http://127.0.0.1:8765"}).status_code == 200
    assert ask(client, text=TEXT, headers={"Origin": "http://example.org"}).status_code == 403
    # a foreign name that was made to point here
    assert client.get("/", base_url="http://example.org:8765").status_code == 400
    assert client.get("/", base_url="http://localhost:8765").status_code == 200
    form = client.post("/look", data={"text": TEXT}, base_url="http://127.0.0.1:8765")
    assert form.status_code == 400 and "not JSON" in error_of(form)
    assert client.get("/look", base_url="http://127.0.0.1:8765").status_code == 405
    for path in ("/secret", "/../page.py", "/page.py", "/%2e%2e/page.py"):
        assert client.get(path, base_url="http://127.0.0.1:8765").status_code == 404


def test_a_long_question_is_not_read(client: Client) -> None:
    assert ask(client, text="x" * (1 << 20)).status_code == 413
    deep = client.post("/look", data="[" * 50_000, content_type="application/json", base_url="http://127.0.0.1:8765")
    assert deep.status_code == 400


def test_questions_are_counted(inspected: InspectedModel) -> None:
    now = [0.0]
    client = Client(InspectorPage(inspected, TEXT, clock=lambda: now[0]))
    codes = [ask(client, text="").status_code for _ in range(BURST + 2)]
    assert codes == [400] * BURST + [429] * 2
    now[0] += 0.25
    assert [ask(client, text="").status_code for _ in range(3)] == [400, 400, 429]


def test_every_answer_forbids_what_the_page_does_not_need(client: Client) -> None:
    for response in (client.get("/", base_url="http://localhost"), ask(client, text=TEXT)):
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_text_to_begin_with_is_escaped(inspected: InspectedModel) -> None:
    page = (
        Client(InspectorPage(inspected, f"</textarea><script>x</script>{HOSTILE}"))
        .get("/", base_url="http://localhost")
        .text
    )
    assert "<img" not in page and "<script>" not in page and "&lt;/textarea&gt;" in page


def test_a_defect_is_not_told_to_the_browser(
    inspected: InspectedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("spanelectra.inspection.page.look", fail)
    response = ask(Client(InspectorPage(inspected, TEXT)), text=TEXT)
    assert response.status_code == 500 and "secret" not in response.text
    assert "a secret" in capsys.readouterr().err


def test_it_listens_on_loopback_only(inspected: InspectedModel) -> None:
    server = make_page_server(inspected, TEXT, 0)
    try:
        assert server.socket.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UserError, match=f"--port {server.port}: .*give another"):
            make_page_server(inspected, TEXT, server.port)
    finally:
        server.server_close()
    with pytest.raises(UserError, match="--port 70000"):
        make_page_server(inspected, TEXT, 70_000)
