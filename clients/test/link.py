"""A link that drops one connection in three, at varying points: before the server gets the request,
after the server has answered and before the client gets the answer, or in the middle of the answer."""
import random, socket, threading


class Link:
    def __init__(self, server, seed, dropped=1 / 3, fates=("unsent", "unheard", "torn")):
        self.fates = fates
        self.server, self.dropped, self.random = server, dropped, random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            fate = self.random.choice(self.fates) if self.random.random() < self.dropped else None
            threading.Thread(target=self.carry, args=(client, fate), daemon=True).start()

    def carry(self, client, fate):
        """Carries one request and its answer, then ends the connection."""
        try:
            with client, socket.create_connection(self.server) as server:
                request = read_message(client)
                if fate == "unsent" or not request:
                    return
                server.sendall(request)
                answer = read_message(server)
                if fate == "unheard":
                    return
                client.sendall(answer[:len(answer) // 2] if fate == "torn" else close(answer))
        except OSError:
            pass  # one side is gone, which is the purpose of the link


def read_message(connection):
    """Reads a head and a body of Content-Length; less when the other side closes."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return data
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0]) if lengths else 0
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            break
        body += more
    return head + b"\r\n\r\n" + body


def close(answer):
    """Adds Connection: close, so that no client keeps the connection."""
    return answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
