"""What signxml says of responses. Usage: judge.py CERTIFICATE; each line of standard input is the base64 of a document.

Each line of standard output is JSON: {"good": true, "ids": [...]} with the ids of what was signed, as signxml returns it, or {"good": false}.
It is asked strictly, as its documentation wants it: one key, one reference, signatures and digests of the SHA-2 family.
"""

import base64
import json
import sys

from lxml import etree
from signxml import XMLVerifier, SignatureConfiguration

DS = "{http://www.w3.org/2000/09/xmldsig#}"
certificate = open(sys.argv[1]).read()
parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=False)

for line in sys.stdin:
    try:
        root = etree.fromstring(base64.b64decode(line), parser)
        holders = [element.getparent() for element in root.iter(DS + "Signature")]
        ids = []
        for holder in holders:
            signed = XMLVerifier().verify(
                holder,
                x509_cert=certificate,
                id_attribute="ID",
                expect_config=SignatureConfiguration(location="./"),
            ).signed_xml
            ids.append(signed.get("ID"))
        print(json.dumps({"good": bool(ids), "ids": ids}), flush=True)
    except Exception as cause:  # whatever it raises, it does not believe
        print(json.dumps({"good": False, "why": type(cause).__name__}), flush=True)
