#!/usr/bin/env python3
"""Plays the cases of cases.json. usage: serve.py PORT cases.json [NAME]

Every method but GET on /NAME gets the next answer of that case (on every path, when NAME is
given). GET /NAME returns the requests that arrived: [{"method", "key", "type", "body"}, …], the body as text.
A request beyond the last answer gets 599 and is recorded. Port 0 takes a free port, which is printed."""
import collections, http.server, json, socket, struct, sys, time


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port, cases, only=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.cases, self.only = {case["name"]: case for case in cases}, only
        self.arrived = collections.defaultdict(list)

    def handle_error(self, *_):
        pass  # clients that time out close their connections


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {}, json.dumps(self.server.arrived[self.case()]).encode())

    def do_POST(self):
        name, header = self.case(), self.headers
        body = self.rfile.read(int(header.get("Content-Length", 0))).decode()
        arrived = self.server.arrived[name]
        arrived.append({"method": self.command, "key": header.get("Idempotency-Key"),
                        "type": header.get("Content-Type"), "body": body})
        answers = self.server.cases[name]["answers"]
        if len(arrived) > len(answers):
            return self.answer(599, {}, b"")
        answer = answers[len(arrived) - 1]
        if "error" in answer:
            return self.fail(answer["error"])
        headers, body = dict(answer.get("headers", {})), answer.get("body", "")
        if "problem" in answer:
            headers["Content-Type"], body = "application/problem+json", json.dumps(answer["problem"])
        self.answer(answer["status"], headers, body.encode())

    do_PUT = do_PATCH = do_DELETE = do_POST

    def case(self):
        return self.server.only or self.path.strip("/")

    def answer(self, status, headers, body):
        self.send_response_only(status)
        if status != 204:
            headers = {**headers, "Content-Length": str(len(body))}
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def fail(self, how):
        if how == "torn":
            self.wfile.write(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"id\":")
        elif how == "torn head":
            self.wfile.write(b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n")
        elif how == "silent":
            time.sleep(60)  # longer than a client's time-out for one try
        elif how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how != "close":
            raise ValueError(how)
        self.close_connection = True

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        server = Server(int(sys.argv[1]), json.load(file), *sys.argv[3:4])
    print(server.server_port, flush=True)
    server.serve_forever()
