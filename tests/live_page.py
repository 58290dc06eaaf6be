"""The live figure in a browser without a screen: ``python -m tests.live_page PAGE [FOLDER]`` for a built page.

Chromium (as ``chromium``, ``chromium-browser`` or ``google-chrome``) is driven through a pipe, so nothing else has to
be installed. With a folder, screenshots go there.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
OPTIONS = ('--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--remote-debugging-pipe')
WAIT = 60.0  # seconds for what takes a moment
KEYS = {'ArrowRight': 39, 'ArrowDown': 40}  # and their numbers
KEYS_DO = (  # where, key, and what the figure's state then is
    ('[name=live-channel]', 'ArrowRight', {'channel': 1.05}),
    ('[name=live-slot]:checked', 'ArrowRight', {'slot': '1'}),
    ('[name=live-image]:checked', 'ArrowRight', {'image': '3'}),
    ('[name=live-code]', 'ArrowDown', {'code': '0'}),
)


class Browser:
    """One tab, spoken to in Chromium's DevTools protocol; ``errors`` is what its console has said of faults."""

    def __enter__(self) -> Browser:
        (there, self.out), (self.back, here) = os.pipe(), os.pipe()
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        plumbed = ['bash', '-c', f'exec "$@" 3<&{there} 4>&{here}', 'bash', CHROMIUM]
        self.process = subprocess.Popen(
            [*plumbed, *OPTIONS, f'--user-data-dir={self.folder.name}'], pass_fds=(there, here),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there), os.close(here)
        self.replies, self.count, self.session, self.errors = os.fdopen(self.back, 'rb'), 0, None, []
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        self.session = self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log'):
            self.send(f'{domain}.enable')
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self.out), self.replies.close(), self.folder.cleanup()

    def send(self, method: str, **parameters: object) -> dict:
        """Call a method and wait for its result; events that come before it are looked through for faults."""
        self.count += 1
        message = {'id': self.count, 'method': method, 'params': parameters}
        os.write(self.out, json.dumps(message | ({'sessionId': self.session} if self.session else {})).encode() + b'\0')
        while True:
            text = bytearray()
            while not text.endswith(b'\0'):
                text += self.replies.read(1) or sys.exit('the browser has gone')
            reply = json.loads(text[:-1])
            said = reply.get('params', {})
            level = said.get('type') or said.get('entry', {}).get('level')
            if reply.get('method') == 'Runtime.exceptionThrown' or level in ('error', 'assert'):
                self.errors.append(json.dumps(said)[:500])
            if reply.get('id') == self.count:
                if 'error' in reply:
                    raise RuntimeError(f'{method}: {reply["error"]["message"]}')
                return reply['result']

    def js(self, code: str) -> object:
        """The value of an expression in the page."""
        found = self.send('Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in found:
            raise RuntimeError(f'{code}: {found["exceptionDetails"]}')
        return found['result'].get('value')

    def open(self, url: str, width: int, touch: bool = False, until: str = '!!document.querySelector(".live-figure")'):
        """Load a page in a window of that width, and wait until something holds in it."""
        size = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': touch}
        self.send('Emulation.setDeviceMetricsOverride', **size)
        self.send('Emulation.setTouchEmulationEnabled', enabled=touch)
        if error := self.send('Page.navigate', url=url).get('errorText'):
            raise FileNotFoundError(f'{url}: {error}')
        end = time.monotonic() + WAIT
        while not self.js(f'document.readyState === "complete" && {until}'):
            if time.monotonic() > end:
                raise TimeoutError(f'{url}: {until} does not hold after {WAIT:.0f} s; console: {self.errors}')
            time.sleep(0.1)

    def place(self, selector: str) -> tuple[float, float, float]:
        """Left end, width and middle height of an element, scrolled into view."""
        see = 'e.scrollIntoView({block: "center", behavior: "instant"})'
        box = self.js(f'(e => ({see}, e.getBoundingClientRect().toJSON()))(document.querySelector({selector!r}))')
        return box['x'], box['width'], box['y'] + box['height'] / 2

    def drag(self, selector: str, start: float, end: float, touch: bool = False) -> None:
        """Drag over an element, from one share of its width to another, by mouse or finger."""
        left, width, y = self.place(selector)
        for number in range(11):
            x = left + width * (start + (end - start) * number / 10)
            if touch:
                kind = 'touchMove' if number else 'touchStart'
                self.send('Input.dispatchTouchEvent', type=kind, touchPoints=[{'x': x, 'y': y}])
            else:
                kind = 'mouseMoved' if number else 'mousePressed'
                self.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', buttons=1, clickCount=1)
            time.sleep(0.02)  # a finger that is faster flings the page, and the next tap only stops that
        if touch:
            self.send('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])
        else:
            self.send('Input.dispatchMouseEvent', type='mouseReleased', x=x, y=y, button='left', clickCount=1)
        time.sleep(0.3)  # two taps in less are a double one

    def press(self, selector: str, key: str) -> None:
        """Press a key on an element."""
        self.js(f'document.querySelector({selector!r}).focus()')
        for kind in ('keyDown', 'keyUp'):
            self.send('Input.dispatchKeyEvent', type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def shoot(self, folder: Path | None, name: str) -> None:
        """Keep what is seen."""
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f'{name}.png').write_bytes(base64.b64decode(self.send('Page.captureScreenshot')['data']))


STATE = """(() => {
  const one = (selector) => document.querySelector(`.live-figure ${selector}`);
  const all = (name) => [...document.querySelectorAll(`.live-${name}`)].map((canvas) => canvas.toDataURL());
  return {
    text: one('.live-text').textContent, masks: all('mask'), attention: all('attention'), scales: all('channels'),
    channel: one('[name=live-channel]').valueAsNumber, code: one('[name=live-code]').value,
    image: one('[name=live-image]:checked').value, slot: one('[name=live-slot]:checked').value,
    all: one('[name=live-all]').checked, wide: document.documentElement.scrollWidth - window.innerWidth,
  };
})()"""
CHANGES = 20
CHANGE = f"""for (let i = 0; i < {CHANGES}; i++)
  document.querySelector('[name=live-channel]').dispatchEvent(new Event('input', {{ bubbles: true }}));"""


def check(url: str, shots: Path | None = None) -> tuple[list[str], float]:
    """What is wrong with the page's live figure, and the milliseconds that one change computes for."""
    wrong = []
    with Browser() as tab:

        def expect(holds: Callable[[dict], bool], what: str) -> dict:
            """The figure's state, as soon as something holds of it; noted as wrong if it does not come to hold."""
            end = time.monotonic() + 20
            while not holds(state := tab.js(STATE)) and time.monotonic() < end:
                time.sleep(0.05)
            if not holds(state):
                wrong.append(f'{device}: {what}')
            return state

        for width, touch in ((1200, False), (390, True)):
            device = f'{width} pixels, {"touch" if touch else "mouse"}'
            tab.open(url, width, touch)
            tab.place('.live-panels')
            old = expect(lambda new: new['masks'][1] == new['masks'][2], 'untouched, the pass is not the trained one')
            tab.shoot(shots, f'{width}_before')
            tab.drag('[name=live-channel]', 0.5, 0.0, touch)
            new = expect(lambda new: new['channel'] == 0, 'a drag to its left end does not bring a slider to 0')
            tab.place('.live-panels')
            tab.shoot(shots, f'{width}_after')
            same = [what for what in ('text', 'masks', 'attention', 'scales') if new[what] == old[what]]
            changed = [pass_ for pass_, mask in enumerate(new['masks'][:2]) if mask != old['masks'][pass_]]
            wrong += [f'{device}: a drag does not change the {what}' for what in same]
            wrong += [f'{device}: a drag changes pass {pass_}, which is for comparison' for pass_ in changed]
            wrong += [f'{device}: the page is {new["wide"]} pixels too wide'] * (new['wide'] > 0)
            tab.drag('.live-images label:nth-of-type(3) img', 0.5, 0.5, touch)
            expect(lambda new: new['image'] == '2', 'another image does not come')
            tab.drag('.live-all', 0.5, 0.5, touch)
            tab.drag('[name=live-spatial]', 0.5, 0.0, touch)
            expect(lambda new: new['masks'][2] == new['masks'][0], 'without scales the second pass is not the first')
            tab.drag('.live-reset', 0.5, 0.5, touch)
            expect(lambda new: new['masks'][2] == new['masks'][1] and not new['all'], 'reset does not reset')
        device, old = 'keys', tab.js(STATE)
        for selector, key, state in KEYS_DO:
            tab.press(selector, key)
            expect(lambda new, state=state: state.items() <= new.items(), f'{key} on {selector} does not give {state}')
        expect(lambda new: new['masks'] != old['masks'], 'they change no masks')
        spent = []
        tab.send('Performance.enable', timeDomain='threadTicks')  # the processor's time, whatever else runs
        for code in ('0', CHANGE):
            tab.js(code)
            metrics = {metric['name']: metric['value'] for metric in tab.send('Performance.getMetrics')['metrics']}
            spent.append(1000 * metrics['ScriptDuration'] / CHANGES)
        tab.send('Emulation.setScriptExecutionDisabled', value=True)
        tab.open(url, 390, True, until='!document.querySelector(".live-figure")')
        if not tab.js('document.querySelector("#live-modulation img")?.getBoundingClientRect().width'):
            wrong.append('without scripts no static image is seen')
        wrong += [f'console: {error}' for error in tab.errors]
    return wrong, spent[1] - spent[0]


if __name__ == '__main__':
    if CHROMIUM is None:
        print('the live figure was not looked at: no Chromium was found')
        sys.exit(0)
    problems, spent = check(Path(sys.argv[1]).resolve().as_uri(), *map(Path, sys.argv[2:3]))
    print('\n'.join(problems) or f'the live figure works; a change takes {spent:.1f} ms')
    sys.exit(bool(problems))
