"""The pictures of docs/operations.md."""
import os, threading, time
from browser import *

def pictures(browser, directory):
    """Each screen in both themes, after half a minute of mixed traffic."""
    os.makedirs(directory, exist_ok=True)
    with Site() as site:
        stop = threading.Event()
        def load(n):
            i = 0
            while not stop.wait(.004 + .012 * abs((time.time() / 9 + n / 3) % 2 - 1)):
                i += 1
                site.send("/orders", f"{n}-{i * 3 // 4}")
                if i % 37 == n: site.send("/orders", f"{n}-{i * 3 // 4}", body=b'{"other":true}')
                if i % 150 == 20: site.send("/unknown", "order-1042", "acme")
        threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        for scope, key in ("acme", "order-1042"), ("acme", "order-1043"), ("globex", "0192f3c2-7b1e-7c4a-9e55-4c1d7b2a9e55"), ("initech", "<img src=x onerror=alert(1)>"):
            site.orphan(key, scope, "/unknown")
        for i in range(400): site.send(f"/ttl?s={3600 * (2 + (i * i) % 29)}", f"expires-{i}")
        for thread in threads: thread.start()
        site.api("POST", "backups", {"name": "2026-11-27T0200"})
        until(lambda: site.api("GET", "backups")[1]["backups"], lambda listed: listed and listed[0]["whole"])
        time.sleep(40)
        site.api("POST", "backups/2026-11-27T0200/verify", {})
        site.api("POST", "fold", {})
        try:
            for theme in "light", "dark":
                with Page(browser, site.url, theme, token=None) as page:
                    shoot = lambda name: page.screenshot(path=os.path.join(directory, f"{name}-{theme}.png"), full_page=name not in ("login", "resolve"))
                    page.get_by_label("Token").wait_for()
                    shoot("login")
                    page.get_by_label("Token").fill(OPERATOR)
                    page.keyboard.press("Enter")
                    for screen in SCREENS:
                        go(page, screen)
                        if screen == "lookup":
                            page.get_by_label("Scope").fill("acme")
                            page.get_by_label("Key", exact=True).fill("1-3")
                            page.keyboard.press("Enter")
                        page.wait_for_timeout(1200)
                        page.mouse.move(1, 799)
                        shoot(screen)
                    go(page, "orphans")
                    decide(page, "order-1042", "It happened", "INC-4711: the provider shows the charge", '{"id": 7}')
                    page.get_by_role("dialog").evaluate("(dialog) => { dialog.scrollTop = 0; }")
                    shoot("resolve")
        finally:
            stop.set()
            for thread in threads: thread.join()
    from PIL import Image
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        with Image.open(path) as image: image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
