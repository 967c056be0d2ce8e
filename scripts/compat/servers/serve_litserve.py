"""LitServe: serve_litserve.py PORT FOLDER."""

import sys

import litserve


class Small(litserve.LitAPI):
    """Sums the numbers of a request."""

    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        if x == [666]:
            raise ValueError("the model fell over")
        return sum(x)

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    server = litserve.LitServer(Small(), accelerator="cpu")
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
