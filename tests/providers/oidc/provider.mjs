// An OpenID provider for tests: the certified one from npm, with one client and accounts that need no password. Reads its settings from one
// JSON argument: { cert, key, account, claims, redirect }; claims is a file, which is read for each login. Prints the issuer on a line when it listens.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { Provider } from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);
const server = createServer({ cert: readFileSync(settings.cert), key: readFileSync(settings.key) });
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `https://localhost:${server.address().port}`;

const claims = () => JSON.parse(readFileSync(settings.claims));
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'remoteler',
      client_secret: 'canary-client-secret',
      redirect_uris: [settings.redirect],
      // Known beforehand, as it is asked for; no connector has to use it.
      post_logout_redirect_uris: [settings.redirect.replace(/\/web\/callback\/([^/]+)$/, '/web/logout/$1/done')],
      response_types: ['code'],
      grant_types: ['authorization_code'],
    },
  ],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: Object.keys(claims()) },
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: false } },
  pkce: { required: () => true },
  cookies: { keys: ['a key that signs cookies of tests'] },
  async findAccount(_, id) {
    return { accountId: id, claims: async () => ({ sub: id, ...claims() }) };
  },
  async loadExistingGrant(context) {
    const grant = new context.oidc.provider.Grant({
      clientId: context.oidc.client.clientId,
      accountId: context.oidc.session.accountId,
    });
    grant.addOIDCScope('openid email profile');
    await grant.save();
    return grant;
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
});

const callback = provider.callback();
server.on('request', async (request, response) => {
  if (!request.url.startsWith('/interaction/')) {
    callback(request, response);
    return;
  }
  const result =
    settings.account === null
      ? { error: 'access_denied', error_description: 'the user said no' }
      : { login: { accountId: settings.account } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
});
console.log(issuer);
