"""An identity provider made of pysaml2: logs whoever comes in as the user it was told, without a question.

Usage: idp_pysaml2.py DIRECTORY SIGN [TLS], with key.pem, certificate.pem and, when somebody logs in, sp.xml in DIRECTORY; SIGN is assertion,
response or both, or one of those that encrypt the assertion for the certificate in sp.xml after it is signed: encrypted (with AES-GCM, and the
response is signed around it), encrypted-unsigned (the same, and nothing around it is signed), encrypted-cbc (as pysaml2 does of itself); TLS is JSON: {"cert": FILE, "key": FILE, "logins": NAME}. Prints its address; GET /metadata, GET /sso (HTTP-Redirect) and
POST /sso (HTTP-POST) are what it answers.
"""

import html
import functools
import http.server
import json
import logging
import os
import ssl
import sys
import urllib.parse

import saml2.entity
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT
from saml2.config import IdPConfig
from saml2.metadata import entity_descriptor
from saml2.saml import NAMEID_FORMAT_PERSISTENT, NameID
from saml2.server import Server
from saml2.sigver import SecurityContext, pre_encryption_part
from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256

directory, sign = sys.argv[1:3]
encrypt = sign.startswith("encrypted")
if encrypt and sign != "encrypted-cbc":
    # pysaml2 has no setting for it; xmlsec1, which it calls, has the algorithm.
    saml2.entity.pre_encryption_part = functools.partial(
        pre_encryption_part, msg_enc="http://www.w3.org/2009/xmlenc11#aes256-gcm"
    )
    SecurityContext.encrypt_assertion.__defaults__ = ("aes-256", None)
tls = json.loads(sys.argv[3]) if len(sys.argv) > 3 else None
logging.disable(logging.CRITICAL)


def path(name):
    return os.path.join(directory, name)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, kind, text):
        octets = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def do_GET(self):
        where = urllib.parse.urlsplit(self.path)
        if where.path == "/metadata":
            self.answer(200, "application/samlmetadata+xml", str(entity_descriptor(config([]))))
            return
        fields = {name: values[0] for name, values in urllib.parse.parse_qs(where.query).items()}
        self.login(fields, BINDING_HTTP_REDIRECT)

    def do_POST(self):
        octets = self.rfile.read(int(self.headers["Content-Length"]))
        fields = {name: values[0] for name, values in urllib.parse.parse_qs(octets.decode()).items()}
        self.login(fields, BINDING_HTTP_POST)

    def login(self, fields, binding):
        try:
            signed = {}
            if binding == BINDING_HTTP_REDIRECT:
                signed = {
                    "relay_state": fields["RelayState"],
                    "sigalg": fields["SigAlg"],
                    "signature": fields["Signature"],
                }
            idp = provider()
            request = idp.parse_authn_request(fields["SAMLRequest"], binding, **signed)
            arguments = idp.response_args(request.message)
            response = idp.create_authn_response(
                {"groups": ["dev", "o&m"], "mail": ["ann@example.com"], "logins": [tls["logins"] if tls else "dev"]},
                name_id=NameID(format=NAMEID_FORMAT_PERSISTENT, text="ann-1"),
                authn={"class_ref": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"},
                sign_assertion=encrypt or sign in ("assertion", "both"),
                sign_response=sign in ("response", "both", "encrypted", "encrypted-cbc"),
                encrypt_assertion=encrypt,
                encrypt_assertion_self_contained=True,
                sign_alg=SIG_RSA_SHA256,
                digest_alg=DIGEST_SHA256,
                **{name: arguments[name] for name in ("in_response_to", "destination", "sp_entity_id")},
            )
            form = idp.apply_binding(
                BINDING_HTTP_POST, str(response), arguments["destination"], fields.get("RelayState", ""), response=True
            )
            self.answer(200, "text/html", form["data"])
        except Exception as cause:  # the test reads it
            self.answer(400, "text/plain", f"{type(cause).__name__}: {cause}")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
port = server.server_address[1]
base = f"http://127.0.0.1:{port}"
if tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls["cert"], tls["key"])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    base = f"https://localhost:{port}"


def config(local):
    return IdPConfig().load(
        {
            "entityid": f"{base}/metadata",
            "key_file": path("key.pem"),
            "cert_file": path("certificate.pem"),
            "xmlsec_binary": "/usr/bin/xmlsec1",
            "metadata": {"local": local},
            "service": {
                "idp": {
                    "endpoints": {
                        "single_sign_on_service": [
                            (f"{base}/sso", BINDING_HTTP_REDIRECT),
                            (f"{base}/sso", BINDING_HTTP_POST),
                        ]
                    },
                    "want_authn_requests_signed": True,
                    "policy": {"default": {"lifetime": {"minutes": 5}, "attribute_restrictions": None}},
                }
            },
        }
    )


@functools.cache
def provider():
    """As of the first login: whoever is to be logged in there may ask for our metadata before theirs is known."""
    return Server(config=config([path("sp.xml")]))


print(html.escape(base), flush=True)
server.serve_forever()
