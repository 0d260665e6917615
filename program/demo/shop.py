"""A shop without any idempotency: each POST charges. `/slow` takes three seconds."""
import http.server, time

class Shop(http.server.BaseHTTPRequestHandler):
    charges = 0
    def do_POST(self):
        amount = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(3 if self.path == "/slow" else 0)
        Shop.charges += 1
        answer = b"charge %d: %s\n" % (Shop.charges, amount)
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Shop).serve_forever()
