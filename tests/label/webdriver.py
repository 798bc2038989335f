# SPDX-License-Identifier: Apache-2.0
"""The few words of the WebDriver protocol that a test needs to drive headless Chromium."""

import base64
import json
import subprocess
import urllib.error
import urllib.request

from tests.label.server import wait_for

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id in the protocol
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1500,950 --use-gl=angle --use-angle=swiftshader "
    "--enable-unsafe-swiftshader"
)


class Browser:
    """Chromium with a profile in a folder, through chromedriver at a port."""

    def __init__(self, folder, port):
        self.url = f"http://127.0.0.1:{port}"
        log = open(folder / "chromedriver.log", "w")
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=log, stderr=log)
        options = {"binary": "/usr/bin/chromium", "args": [*FLAGS.split(), f"--user-data-dir={folder}/profile"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        wait_for(self.is_up)
        session = self.send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.url += f"/session/{session['sessionId']}"

    def is_up(self):
        try:
            return self.send("GET", "/status")["ready"]
        except OSError:
            return False

    def send(self, method, path, body=None):
        """Send a command; give its value."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:500]) from error

    def open(self, url):
        self.send("POST", "/url", {"url": url})

    def run(self, script, *args):
        """Run JavaScript; give what it returns."""
        return self.send("POST", "/execute/sync", {"script": script, "args": list(args)})

    def click_at(self, x, y):
        """Click at a position of the page, as a hand does."""
        steps = [
            {"type": "pointerMove", "duration": 100, "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pause", "duration": 50},
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self.send("POST", "/actions", {"actions": [pointer]})

    def click_on(self, script, *args):
        """Click in the middle of the element that JavaScript finds, once it is there."""
        box = wait_for(lambda: self.run(f"{VISIBLE} return middle((() => {{ {script} }})())", *args))
        self.click_at(*box)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.send("GET", "/screenshot")))

    def responses(self, part):
        """Give the bodies of the responses whose address holds a text, as bytes."""
        bodies = []
        for entry in self.send("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.responseReceived" and part in message["params"]["response"]["url"]:
                got = {"cmd": "Network.getResponseBody", "params": {"requestId": message["params"]["requestId"]}}
                body = self.send("POST", "/goog/cdp/execute", got)
                bodies.append(base64.b64decode(body["body"]) if body["base64Encoded"] else body["body"].encode())
        return bodies

    def close(self):
        try:
            self.send("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=30)


VISIBLE = """
const middle = (element) => {
  if (!element) return null;
  const box = element.getBoundingClientRect();
  return box.width && box.height ? [box.x + box.width / 2, box.y + box.height / 2] : null;
};
"""
