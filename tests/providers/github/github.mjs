// A double of GitHub's login and API for tests, with one user who is an active member of one team. Reads its settings from one JSON argument:
// { cert, key, login }. Codes and tokens are drawn, count once and only for who proves the challenge. Prints its address on a line when it listens.
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

const settings = JSON.parse(process.argv[2]);
const acme = { id: 1, login: 'Acme' };
const codes = new Map();
const tokens = new Set();

const api = {
  '/api/user': { id: 77, login: settings.login },
  '/api/user/memberships/orgs': [{ state: 'active', organization: acme }],
  '/api/user/teams': [{ slug: 'ops', organization: acme }],
  [`/api/orgs/acme/teams/ops/memberships/${settings.login}`]: { state: 'active' },
};

const server = createServer({ cert: readFileSync(settings.cert), key: readFileSync(settings.key) }, (request, response) => {
  const url = new URL(request.url, 'https://localhost');
  const json = (status, value) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  let body = '';
  request.on('data', (part) => (body += part));
  request.on('end', () => {
    if (url.pathname === '/login/oauth/authorize') {
      const asked = Object.fromEntries(url.searchParams);
      if (asked.client_id !== 'remoteler' || asked.code_challenge_method !== 'S256') return json(400, { error: 'invalid_request' });
      const code = randomBytes(16).toString('hex');
      codes.set(code, asked);
      const back = new URL(asked.redirect_uri);
      back.searchParams.set('code', code);
      back.searchParams.set('state', asked.state);
      response.writeHead(302, { location: back.href });
      return response.end();
    }
    if (url.pathname === '/login/oauth/access_token') {
      const form = Object.fromEntries(new URLSearchParams(body));
      const asked = codes.get(form.code);
      codes.delete(form.code);
      const challenge = createHash('sha256').update(String(form.code_verifier)).digest('base64url');
      const right = asked && asked.code_challenge === challenge && asked.redirect_uri === form.redirect_uri && form.client_secret === 'canary-github-secret';
      // As GitHub does: status 200, and no token.
      if (!right) return json(200, { error: 'bad_verification_code' });
      const token = randomBytes(16).toString('hex');
      tokens.add(token);
      return json(200, { access_token: token, token_type: 'bearer', scope: 'read:org,user:email' });
    }
    const bearer = String(request.headers.authorization).replace(/^Bearer /, '');
    if (!tokens.has(bearer)) return json(401, { message: 'Bad credentials' });
    return url.pathname in api ? json(200, api[url.pathname]) : json(404, { message: 'Not Found' });
  });
});
server.listen(0, '127.0.0.1', () => console.log(`https://localhost:${server.address().port}`));
