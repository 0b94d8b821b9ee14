"""The page and the documentation without a browser: what is sent, how it is cached, and that the files fit each other."""

import json
import re
import tomllib
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from ragray.config import ServeConfig
from ragray.serve.app import create_app
from ragray.serve.page.routes import DOCUMENTS, FOLDER, POLICY, TYPES, site
from tests.serve.test_app import Failing

FILES = {path.name: path.read_text("utf-8") for path in FOLDER.iterdir() if path.suffix in TYPES}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
PATHS = ("/", "/docs", f"/page/{site().version}/page.js", f"/page/{site().version}/icon.svg")
IN_THE_PAGE = re.compile(r"""\$\("([^"]+)"\)""")
TEXTS = json.loads(FILES["texts.js"].partition("TEXTS = ")[2].rstrip().removesuffix(";"))
"""What the page says, by language."""


class Tags(HTMLParser):
    """The tags of a document with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.found if (value := attributes.get(name)) is not None]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(create_app(Failing(AssertionError("asked")), ServeConfig()))


def referred(text: str) -> list[str]:
    """Return what a document loads or links to."""
    tags = Tags(text)
    return tags.values("src") + tags.values("href")


@pytest.mark.parametrize("path", PATHS)
def test_every_file_is_sent_with_a_policy_that_lets_nothing_in(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


def test_the_policy_allows_no_inline_code_and_no_frame() -> None:
    assert "unsafe" not in POLICY
    assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(POLICY.split("; "))


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_the_browser_holds_is_not_sent_again(client: TestClient, path: str) -> None:
    first = client.get(path)
    for tag in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content


def test_documents_are_asked_for_each_time_and_files_of_this_version_never_again(client: TestClient) -> None:
    assert {client.get(path).headers["cache-control"] for path in ("/", "/docs")} == {"no-cache"}
    assert "immutable" in client.get(PATHS[2]).headers["cache-control"]
    assert client.get("/page/older/page.js").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/page", "/page/x/none.js", "/page/x/routes.py", "/page/x/..%2froutes.py", "/redoc"])
def test_nothing_but_the_files_is_sent(client: TestClient, path: str) -> None:
    assert client.get(path).json()["error"]["type"] == "not_found"


def test_the_package_holds_every_kind_of_file_that_is_served() -> None:
    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text("utf-8"))
    assert set(project["tool"]["setuptools"]["package-data"]["ragray.serve.page"]) == {f"*{kind}" for kind in TYPES}


def test_head_is_answered_as_get_is(client: TestClient) -> None:
    response = client.head("/")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize("name", DOCUMENTS.values())
def test_a_document_loads_files_that_exist_by_addresses_relative_to_its_own(client: TestClient, name: str) -> None:
    path = next(path for path, document in DOCUMENTS.items() if document == name)
    addresses = [address for address in referred(client.get(f"/{path}").text) if address != "openapi.json"]
    assert addresses
    for address in addresses:
        assert re.match(r"[\w.]", address) and ":" not in address
        assert client.get(f"/{address}").status_code == 200


def test_behind_a_prefix_the_same_addresses_lead_to_the_same_files() -> None:
    app = create_app(Failing(AssertionError("asked")), ServeConfig())
    client = TestClient(app, root_path="/rag", base_url="http://testserver/rag/")
    page = client.get("http://testserver/rag/")
    assert page.status_code == 200
    [script] = Tags(page.text).values("src")
    assert client.get(f"http://testserver/rag/{script}").text == FILES["page.js"]
    assert client.get("http://testserver/rag", follow_redirects=False).headers["location"].endswith("/rag/")


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_an_address_outside(name: str) -> None:
    names = re.findall(r"""https?://[\w.-]+[^\s"'`]*|["'(]//\w[^\s"'`]*""", FILES[name])
    assert [address for address in names if address != "http://www.w3.org/2000/svg"] == []


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".html")])
def test_a_document_has_no_code_and_no_style_of_its_own(name: str) -> None:
    tags = Tags(FILES[name])
    assert [
        (tag, attributes) for tag, attributes in tags.found if tag in ("script", "style") and "src" not in attributes
    ] == []
    assert [key for _, attributes in tags.found for key in attributes if key.startswith("on") or key == "style"] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_or_code_from_text(name: str) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\(\"style\""
    assert re.findall(forbidden, SCRIPTS[name]) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_names_that_the_other_exports(name: str) -> None:
    for names, source in re.findall(r'import \{([^}]+)\} from "\./([\w.]+)"', SCRIPTS[name]):
        exported = re.findall(r"export (?:async )?(?:function\*?|const|class) ([\w$]+)", FILES[source])
        assert {each.strip() for each in names.split(",")} <= set(exported)


def test_every_element_that_a_script_asks_for_stands_in_its_document() -> None:
    page, docs = (set(Tags(FILES[name]).values("id")) for name in ("index.html", "docs.html"))
    assert len(Tags(FILES["index.html"]).values("id")) == len(page)
    for name, text in SCRIPTS.items():
        asked = set(IN_THE_PAGE.findall(text))
        assert asked <= (docs if name == "docs.js" else page), name


def test_what_labels_and_describes_stands_in_the_page() -> None:
    tags = Tags(FILES["index.html"])
    named = [*tags.values("for"), *tags.values("aria-labelledby"), *tags.values("aria-describedby")]
    assert named
    assert set(named) <= set(tags.values("id"))


def test_both_languages_say_the_same() -> None:
    assert list(TEXTS) == ["en", "zh"]
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for key, text in TEXTS["en"].items():
        assert text and TEXTS["zh"][key]
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", TEXTS["zh"][key])), key


def test_every_text_is_used_and_every_one_that_is_used_exists() -> None:
    tags = Tags(FILES["index.html"])
    used = {value for name in ("data-text", "data-label", "data-placeholder") for value in tags.values(name)}
    code = "".join(text for name, text in SCRIPTS.items() if name not in ("texts.js", "docs.js"))
    used |= set(re.findall(r'\b(?:t|say)\("(\w+)"', code))
    assert used <= TEXTS["en"].keys()
    quoted = used | set(re.findall(r'"(\w+)"', code)) | {"name"}
    assert [key for key in TEXTS["en"] if key not in quoted and not key.startswith(("state_", "done_"))] == []


def test_english_texts_of_the_document_are_those_of_the_table() -> None:
    """A reader sees them before the script runs."""
    shown = re.findall(r'data-text="(\w+)"[^>]*>([^<]+)<', FILES["index.html"])
    assert len(shown) > 15
    assert [(key, text) for key, text in shown if TEXTS["en"][key] != text] == []


def test_an_answer_is_no_live_region_and_the_status_is_a_polite_one() -> None:
    assert [
        attributes["id"] for _, attributes in Tags(FILES["index.html"]).found if attributes.get("role") == "status"
    ] == ["status"]
    assert all("aria-live" not in text for text in FILES.values())
