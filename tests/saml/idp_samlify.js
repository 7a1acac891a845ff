// An identity provider made of samlify: logs whoever comes in as the user it was told, without a question.
// Usage: idp_samlify.js DIRECTORY SIGN [TLS], as idp_pysaml2.py. SIGN is assertion or both, or encrypted, encrypted-unsigned or
// encrypted-cbc as there, or encrypted-late: the response is signed, and then its assertion is encrypted.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');
const path = require('path');
const crypto = require('crypto');
const saml = require('samlify');

const [directory, sign, given] = process.argv.slice(2);
const tls = given && JSON.parse(given);
const encrypt = sign.startsWith('encrypted');
const read = (name) => fs.readFileSync(path.join(directory, name), 'utf8');

// What is posted here comes from the test.
saml.setSchemaValidator({ validate: () => Promise.resolve('skipped') });

const template = {
  context: saml.SamlLib.defaultLoginResponseTemplate.context.replace(
    '{AuthnStatement}',
    '<saml:AuthnStatement AuthnInstant="{IssueInstant}" SessionIndex="{AssertionID}"><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>',
  ),
  attributes: [
    { name: 'groups', valueTag: 'groups', nameFormat: 'urn:oasis:names:tc:SAML:2.0:attrname-format:basic', valueXsiType: 'xs:string' },
    { name: 'logins', valueTag: 'logins', nameFormat: 'urn:oasis:names:tc:SAML:2.0:attrname-format:basic', valueXsiType: 'xs:string' },
    { name: 'mail', valueTag: 'mail', nameFormat: 'urn:oasis:names:tc:SAML:2.0:attrname-format:basic', valueXsiType: 'xs:string' },
  ],
};

const answerRequest = (request, response) => {
  const url = new URL(request.url, base);
  const answer = (status, type, text) => {
    response.writeHead(status, { 'Content-Type': type });
    response.end(text);
  };
  if (url.pathname === '/metadata') return answer(200, 'application/samlmetadata+xml', idp.getMetadata());
  let body = '';
  request.on('data', (chunk) => (body += chunk));
  request.on('end', () => {
    login(request.method, url, body)
      .then((text) => answer(200, 'text/html', text))
      .catch((cause) => answer(400, 'text/plain', String((cause && cause.message) || cause)));
  });
};
const server = tls
  ? https.createServer({ cert: fs.readFileSync(tls.cert), key: fs.readFileSync(tls.key) }, answerRequest)
  : http.createServer(answerRequest);

async function login(method, url, body) {
  // As of the first login: whoever is to be logged in there may ask for our metadata before theirs is known.
  sp = sp || saml.ServiceProvider({ metadata: read('sp.xml'), wantMessageSigned: sign === 'both' || (encrypt && sign !== 'encrypted-unsigned') });
  const redirect = method === 'GET';
  const query = Object.fromEntries(redirect ? url.searchParams : new URLSearchParams(body));
  const octetString = url.search.slice(1).replace(/&Signature=.*$/, '');
  const { extract } = await idp.parseLoginRequest(sp, redirect ? 'redirect' : 'post', { query, body: query, octetString });
  const fill = (text) => {
    const now = new Date();
    const soon = new Date(now.getTime() + 300000).toISOString();
    const acs = sp.entityMeta.getAssertionConsumerService('post');
    const id = () => '_' + crypto.randomBytes(20).toString('hex');
    const values = {
      ID: id(), AssertionID: id(), Destination: acs, Audience: sp.entityMeta.getEntityID(), SubjectRecipient: acs,
      Issuer: idp.entityMeta.getEntityID(), IssueInstant: now.toISOString(), StatusCode: 'urn:oasis:names:tc:SAML:2.0:status:Success',
      ConditionsNotBefore: now.toISOString(), ConditionsNotOnOrAfter: soon, SubjectConfirmationDataNotOnOrAfter: soon,
      NameIDFormat: 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent', NameID: 'ann-1', InResponseTo: extract.request.id,
      attrGroups: 'dev', attrLogins: tls ? tls.logins : 'dev', attrMail: 'ann@example.com',
    };
    return { id: values.ID, context: saml.SamlLib.replaceTagsByValue(text, values) };
  };
  const { context } = await idp.createLoginResponse(sp, { extract }, 'post', {}, fill, encrypt && sign !== 'encrypted-late');
  const state = String(query.RelayState || '').replace(/&/g, '&amp;').replace(/"/g, '&quot;');
  return `<form method="post" action="${sp.entityMeta.getAssertionConsumerService('post')}"><input type="hidden" name="SAMLResponse" value="${context}"/><input type="hidden" name="RelayState" value="${state}"/></form>`;
}

let base;
let idp;
let sp;
server.listen(0, '127.0.0.1', () => {
  base = tls ? `https://localhost:${server.address().port}` : `http://127.0.0.1:${server.address().port}`;
  const service = (binding) => ({ Binding: `urn:oasis:names:tc:SAML:2.0:bindings:${binding}`, Location: `${base}/sso` });
  idp = saml.IdentityProvider({
    entityID: `${base}/metadata`,
    privateKey: read('key.pem'),
    signingCert: read('certificate.pem'),
    requestSignatureAlgorithm: 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
    wantAuthnRequestsSigned: true,
    singleSignOnService: [service('HTTP-Redirect'), service('HTTP-POST')],
    loginResponseTemplate: template,
    isAssertionEncrypted: encrypt,
    dataEncryptionAlgorithm: `http://www.w3.org/${sign === 'encrypted-cbc' ? '2001/04/xmlenc#aes256-cbc' : '2009/xmlenc11#aes128-gcm'}`,
  });
  console.log(base);
});
