"""Chromium, Firefox and WebKit behind one interface: what a visitor does, and what came of it."""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, get_args

from playwright.sync_api import Browser as Played
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Playwright
from playwright.sync_api import Error as PlaywrightError
from selenium.common.exceptions import (
    JavascriptException,
    NoSuchFrameException,
    NoSuchWindowException,
    TimeoutException,
    WebDriverException,
)
from selenium.webdriver import ActionChains, Keys, Remote, WebKitGTKOptions
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.remote_connection import RemoteConnection
from selenium.webdriver.webkitgtk.service import Service
from urllib3.exceptions import HTTPError
from websocket import WebSocketException, create_connection

from tests.support.browsers import FIREFOX, FLAGS, find, mini_browser

Name = Literal["chromium", "firefox", "webkit"]
NAMES: tuple[Name, ...] = get_args(Name)
PATIENCE = 20  # seconds for each step
#: What a browser does not do, or not in time.
Failed = (PlaywrightError, WebDriverException, WebSocketException, HTTPError, OSError)
#: A script of ours that comes between two pages.
_BETWEEN = (JavascriptException, NoSuchFrameException, NoSuchWindowException)


class Browser(Protocol):
    """One browser with one visitor at a time, who has one tab."""

    def fresh(self) -> None:
        """The next visitor: without cookies, storage and caches, on an empty page."""

    def goto(self, url: str) -> None:
        """Until the document is parsed; a page that leaves by itself is followed."""

    def back(self) -> None: ...

    def click(self, selector: str) -> None: ...

    def press_enter(self, selector: str) -> None: ...

    def evaluate(self, script: str) -> Any:
        """What the expression comes to; a promise is waited for."""

    def pause(self, seconds: float) -> None:
        """Let the browser's own messages in meanwhile."""

    def cookies(self) -> set[str]:
        """The names of those that the open page's host gets, scripts' and servers'."""

    def lines(self) -> list[str]:
        """What this visitor's console says; with the address of what did not load."""


class ByPlaywright:
    """Chromium by its own protocol."""

    def __init__(self, browser: Played) -> None:
        self._browser = browser
        self._context: BrowserContext | None = None

    def fresh(self) -> None:
        self.close()
        self._lines: list[str] = []
        self._context = self._browser.new_context()
        self._context.set_default_timeout(PATIENCE * 1000)
        self._page: Page = self._context.new_page()
        self._page.on("console", self._say)
        self._page.on("pageerror", lambda error: self._lines.append(f"Uncaught {error}"))

    def _say(self, line: ConsoleMessage) -> None:
        loaded = line.text.startswith("Failed to load")  # its text does not say what
        self._lines.append(line.text + (f" {line.location['url']}" if loaded else ""))

    def goto(self, url: str) -> None:
        self._page.goto(url, wait_until="commit")
        self._page.wait_for_load_state("domcontentloaded")

    def back(self) -> None:
        self._page.go_back(wait_until="commit")

    def click(self, selector: str) -> None:
        self._page.click(selector)

    def press_enter(self, selector: str) -> None:
        self._page.press(selector, "Enter")

    def evaluate(self, script: str) -> Any:
        late = f"new Promise((_, no) => setTimeout(no, {PATIENCE * 1000}, Error('late')))"
        return self._page.evaluate(f"Promise.race([{script}, {late}])")  # it has no time-out

    def pause(self, seconds: float) -> None:
        self._page.wait_for_timeout(seconds * 1000)

    def cookies(self) -> set[str]:
        return {one["name"] for one in self._page.context.cookies(self._page.url)}

    def lines(self) -> list[str]:
        return self._lines

    def close(self) -> None:
        if self._context:
            self._context.close()


class ByBiDi:
    """Debian's Firefox by WebDriver BiDi on its own port; each visitor is a container."""

    def __init__(self, url: str) -> None:
        self._socket = create_connection(url, timeout=PATIENCE, suppress_origin=True)
        self._lines: list[str] = []
        self._calls = 0
        self._visitor = self._page = ""
        self._call("session.new", capabilities={})
        self._call("session.subscribe", events=["log.entryAdded"])

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": params}))
        self._socket.settimeout(PATIENCE)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            said = json.loads(self._socket.recv())
            if said.get("method") == "log.entryAdded":
                entry = said["params"]
                self._lines.append(str(entry["text"]))
            if said.get("id") == self._calls:
                if said["type"] == "error":
                    raise WebDriverException(f"{method}: {said['error']}: {said['message']}")
                return dict(said["result"])
        raise TimeoutException(f"no answer to {method}")

    def fresh(self) -> None:
        if self._visitor:
            self._call("browser.removeUserContext", userContext=self._visitor)
        self._visitor = self._call("browser.createUserContext")["userContext"]
        made = self._call("browsingContext.create", type="tab", userContext=self._visitor)
        self._page = made["context"]
        self._lines.clear()

    def goto(self, url: str) -> None:
        with contextlib.suppress(WebDriverException):  # a page that leaves at once
            self._call("browsingContext.navigate", context=self._page, url=url, wait="interactive")

    def back(self) -> None:
        self._call("browsingContext.traverseHistory", context=self._page, delta=-1)

    def click(self, selector: str) -> None:
        found = self._call(
            "browsingContext.locateNodes",
            context=self._page, locator={"type": "css", "value": selector},
        )  # fmt: skip
        element = {"type": "element", "element": {"sharedId": found["nodes"][0]["sharedId"]}}
        self._act("pointer", [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": element},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ])  # fmt: skip

    def press_enter(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self._act("key", [{"type": kind, "value": Keys.ENTER} for kind in ("keyDown", "keyUp")])

    def _act(self, kind: str, steps: list[dict[str, Any]]) -> None:
        actions = [{"type": kind, "id": kind, "actions": steps}]
        self._call("input.performActions", context=self._page, actions=actions)

    def evaluate(self, script: str) -> Any:
        done = self._call(
            "script.evaluate", expression=script, target={"context": self._page}, awaitPromise=True
        )
        if done["type"] == "exception":
            raise WebDriverException(done["exceptionDetails"]["text"])
        return done["result"].get("value")

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def cookies(self) -> set[str]:
        within = {"type": "context", "context": self._page}
        return {
            one["name"] for one in self._call("storage.getCookies", partition=within)["cookies"]
        }

    def lines(self) -> list[str]:
        self._call("session.status")  # what was said before the answer is in by then
        return self._lines

    def close(self) -> None:
        self._socket.close()


class ByWebDriver:
    """WebKitGTK's MiniBrowser, which tells its console on stdout; each visitor is a new process."""

    def __init__(self, display: str, said: Path) -> None:
        self._said = said
        self._environment = {
            **_environment(str(said.parent)),
            "DISPLAY": display,
            "GDK_BACKEND": "x11",
            "NO_AT_BRIDGE": "1",  # no accessibility bus
            "WEBKIT_DISABLE_DMABUF_RENDERER": "1",  # no graphics card
        }
        self._driver: Remote | None = None

    def fresh(self) -> None:
        self.close()
        options = WebKitGTKOptions()
        options.binary_location = mini_browser()
        options.add_argument("--automation")
        options.add_argument("--enable-write-console-messages-to-stdout=true")
        options.page_load_strategy = "none"
        self._said.write_text("")
        service = Service(
            "/usr/bin/WebKitWebDriver", log_output=str(self._said), env=self._environment
        )
        service.start()
        self._service = service
        self._driver = Remote(command_executor=_asking_once(service.service_url), options=options)
        self._driver.set_script_timeout(PATIENCE)

    @property
    def _page(self) -> Remote:
        assert self._driver is not None
        return self._driver

    def goto(self, url: str) -> None:
        # Its own way to wait may miss what it waits for.
        self._page.execute_script("window.isOld = true")
        self._page.get(url)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(*_BETWEEN):
                if self._page.execute_script(
                    "return !window.isOld && document.readyState !== 'loading'"
                ):
                    return
            time.sleep(0.02)
        raise TimeoutException(f"no page at {url}")

    def back(self) -> None:
        self._page.back()

    def click(self, selector: str) -> None:
        self._find(selector).click()

    def press_enter(self, selector: str) -> None:
        # Selenium would click first.
        self._page.execute_script("arguments[0].focus()", self._find(selector))
        ActionChains(self._page).send_keys(Keys.ENTER).perform()

    def _find(self, selector: str) -> Any:
        return self._page.find_element("css selector", selector)

    def evaluate(self, script: str) -> Any:
        done = "arguments[arguments.length - 1]"
        return self._page.execute_async_script(
            f"const done = {done}; Promise.resolve({script}).then(done, e => done(String(e)))"
        )

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def cookies(self) -> set[str]:
        return {str(one["name"]) for one in self._page.get_cookies()}

    def lines(self) -> list[str]:
        text = self._said.read_text("utf-8", "replace")
        # Before that word is the script's address, or that of what did not load.
        said = [line.partition("CONSOLE ") for line in text.splitlines()]
        return [what + (at if what.startswith("NETWORK") else "") for at, _, what in said if what]

    def close(self) -> None:
        if self._driver:
            with contextlib.suppress(WebDriverException):
                self._driver.quit()
            self._service.stop()


def _asking_once(url: str) -> RemoteConnection:
    """Selenium would wait two minutes, four times."""
    pool = {"init_args_for_pool_manager": {"retries": False}}
    return RemoteConnection(
        client_config=ClientConfig(
            remote_server_addr=url, timeout=3 * PATIENCE, init_args_for_pool_manager=pool
        )
    )


def _environment(folder: str) -> dict[str, str]:
    """A browser lives in a folder of its own: that of this process may be another user's by now."""
    return {**os.environ, "HOME": folder, "XDG_RUNTIME_DIR": folder}


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _screen() -> Iterator[str]:
    """A display that nobody sees."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"],
        pass_fds=[writer], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    try:
        with os.fdopen(reader) as said:
            yield ":" + said.readline().strip()
    finally:
        _end(process)


@contextlib.contextmanager
def _firefox() -> Iterator[str]:
    """Where a Firefox with a profile of its own listens."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        said = Path(profile) / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [FIREFOX, "--headless", "--remote-debugging-port=0", "--profile", profile],
                stdout=output, stderr=output, env=_environment(profile),
            )  # fmt: skip
        try:
            until = time.monotonic() + 60
            while not (found := re.search(r"BiDi listening on (ws:\S+)", said.read_text())):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"Firefox did not start: {said.read_text()}")
                time.sleep(0.05)
            yield f"{found[1]}/session"
        finally:
            _end(process)


@contextlib.contextmanager
def open_browser(name: Name, driver: Playwright) -> Iterator[Browser]:
    """A running browser; it ends with the context. `driver` starts Chromium."""
    with contextlib.ExitStack() as stack:
        if name == "webkit":
            said = Path(stack.enter_context(TemporaryDirectory())) / "said"
            webkit = ByWebDriver(stack.enter_context(_screen()), said)
            stack.callback(webkit.close)
            yield webkit
        elif name == "firefox":
            yield stack.enter_context(contextlib.closing(ByBiDi(stack.enter_context(_firefox()))))
        else:
            browser = driver.chromium.launch(executable_path=find(), args=FLAGS)
            stack.callback(browser.close)
            yield stack.enter_context(contextlib.closing(ByPlaywright(browser)))
