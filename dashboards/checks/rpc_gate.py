"""An RPC endpoint in front of the local chain that has some methods switched off, as a provider's cheap plan has."""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CALL_LIMIT_SECS = 30
METHOD_NOT_FOUND = {"code": -32601, "message": "Method not found"}


class RpcGate:
    """Serves at `address` what the chain at `target` answers, without the methods that are off."""

    def __init__(self, address, target, off):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                call = json.loads(body)
                if call["method"] in off:
                    answer = json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": METHOD_NOT_FOUND}).encode()
                else:
                    request = urllib.request.Request(f"http://{target}", body, {"content-type": "application/json"})
                    try:
                        with urllib.request.urlopen(request, timeout=CALL_LIMIT_SECS) as response:
                            answer = response.read()
                    except OSError:
                        # The chain is away: so is this endpoint.
                        self.close_connection = True
                        return
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        host, port = address.rsplit(":", 1)
        self.server = ThreadingHTTPServer((host, int(port)), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
