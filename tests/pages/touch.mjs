// Drives a real browser as people who come from an identity provider: keys on the account page, keys for single sessions, logins of programs elsewhere.
// Arguments: address of the proxy, directory for pictures, the script of the pages. Under /test the address plays the provider, the node and tsh.
// Prints one line for each thing that was shown; whatever is wrong ends it with an error.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { totp } from './totp.mjs';

const require = createRequire(process.env.REMOTELER_TEST_PAGES + '/');
const { chromium } = require('playwright-core');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const [base, pictures, scriptPath] = process.argv.slice(2);
const script = fs.readFileSync(scriptPath, 'utf8');

fs.mkdirSync(pictures, { recursive: true });
const browser = await chromium.launch({ timeout: 120_000, executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  const ann = await withKey();
  await keysOnTheAccountPage(ann);
  const answer = await sessions(ann);
  await attacks(ann, answer);
  await device();
} finally {
  await browser.close();
}

/// A browser with a security key of its own, which is touched as soon as it is asked.
async function withKey() {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  await context.route('https://idp.example.com/**', (route) => route.fulfill({
    contentType: 'text/html',
    body: `<meta http-equiv="refresh" content="0;url=${base}/test/idp?to=${encodeURIComponent(route.request().url())}">`,
  }));
  const page = await context.newPage();
  page.setDefaultTimeout(90000);
  const cdp = await context.newCDPSession(page);
  await cdp.send('WebAuthn.enable');
  const options = {
    protocol: 'ctap2', transport: 'usb', hasResidentKey: false, hasUserVerification: true, isUserVerified: true,
    automaticPresenceSimulation: true,
  };
  const { authenticatorId } = await cdp.send('WebAuthn.addVirtualAuthenticator', { options });
  return { context, page, cdp, authenticatorId };
}

async function play(context, what) {
  const answer = await context.request.get(`${base}/test/${what}`, { timeout: 90000 });
  assert.equal(answer.status(), 200, what);
  return answer.json();
}

async function check(page, name) {
  // With its stylesheet: what one waits for on a page can be there before it.
  await page.waitForLoadState('load');
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  assert.deepEqual(violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join('; ')}`), [], `${name}: axe`);
  await page.screenshot({ path: path.join(pictures, `${name}-light.png`), fullPage: true });
}

async function logIn({ context, page }, name) {
  await play(context, `who?name=${name}`);
  await page.goto(`${base}/web/account`);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('link', { name: 'Acme' }).click();
  await page.getByRole('heading', { name: 'Second factors' }).waitFor();
  assert.match(await page.textContent('main'), new RegExp(`You are ${name}@example.com, and log in by idp`));
}

/// Clicks what asks the key, once the page's script is there to do it.
async function press(page, heading, button) {
  await page.getByRole('heading', { name: heading }).waitFor();
  await page.waitForLoadState('load');
  await page.getByRole('button', { name: button }).click();
}

async function addKey({ page }) {
  await page.getByRole('button', { name: 'Add a security key' }).click();
  await press(page, 'Add a security key', 'Use the security key');
  await page.locator('.codes li').first().waitFor();
  await page.goto(`${base}/web/account`);
}

async function keysOnTheAccountPage(ann) {
  const { page, context } = ann;
  await logIn(ann, 'ann');
  await addKey(ann);
  assert.equal(await page.getByRole('button', { name: 'Add an authenticator app' }).count(), 0, 'the key is to be shown first');
  console.log('a first key was set up after a login at the provider');

  await page.getByRole('button', { name: 'Log out' }).first().click();
  await page.getByRole('button', { name: 'Log in' }).waitFor();
  await logIn(ann, 'ann');
  assert.equal(await page.getByRole('button', { name: 'Remove security key' }).count(), 0);
  await check(page, 'live-account-prove');
  await page.getByLabel('One-time code').fill('000000');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').filter({ hasText: 'code is wrong' }).waitFor();
  await page.getByRole('button', { name: 'Use the security key' }).click();
  await page.getByRole('heading', { name: 'Use your security key' }).waitFor();
  await check(page, 'live-account-touch');
  await press(page, 'Use your security key', 'Use the security key');
  await page.getByRole('status').filter({ hasText: 'can be changed' }).waitFor();
  await page.getByRole('button', { name: 'Add an authenticator app' }).click();
  const secret = (await page.locator('code').textContent()).replaceAll(' ', '');
  const { now } = await play(context, 'later?seconds=0');
  await page.getByLabel('Six digits from the app').fill(totp(secret, now));
  await page.keyboard.press('Enter');
  await page.getByRole('status').filter({ hasText: 'was added' }).waitFor();
  console.log('a key was shown before an app was added');
}

/// Begins a session at the node; the page that its terminal names, and the code there.
async function begin({ context }, name, session = '') {
  const begun = await play(context, `begin?name=${name}&session=${session}`);
  assert.equal(begun.kind, 'SecondFactorNeeded', begun.said);
  const [, url, code] = begun.said.match(/open (https:\S+) which shows (\S+),/);
  assert.ok(url.startsWith(`${base}/web/session/`), url);
  return { ...begun, url, code, enter: () => play(context, `enter?name=${name}&session=${begun.session}`) };
}

/// What the page asks of the key, and where its answer goes.
async function asked(page) {
  const value = (name) => page.locator(`input[name=${name}]`).inputValue();
  const options = JSON.parse(await page.locator('button[data-webauthn]').getAttribute('data-options'));
  return { options, csrf: await value('csrf'), token: await value('token') };
}

function answerOf(page, options) {
  return page.evaluate(`(() => { ${script}; return ask('get', ${JSON.stringify(options)}); })()`);
}

async function send(context, url, { csrf, token }, answer) {
  const sent = await context.request.post(url, { form: { csrf, token, answer }, headers: { origin: base }, timeout: 90000 });
  return { status: sent.status(), text: await sent.text() };
}

async function touch(page) {
  await press(page, 'Begin this session?', 'I am going there');
  await page.getByText('press Enter').waitFor();
}

async function sessions(ann) {
  const { page } = ann;
  const first = await begin(ann, 'ann');
  assert.match(first.said, /of: Authenticator app; or/, 'a code counts as well');
  await page.goto(first.url);
  await check(page, 'live-session');
  const shown = await page.textContent('main');
  for (const part of ['ann@example.com', 'db-1', 'root', '192.0.2.9:41000', first.code]) {
    assert.ok(shown.includes(part), `${part}: ${shown}`); // I49
  }
  let entered = await first.enter();
  assert.equal(entered.kind, 'Unauthenticated', 'not before the touch');
  const { options } = await asked(page);
  const answer = await answerOf(page, options);
  await touch(page);
  entered = await first.enter();
  assert.deepEqual(entered, { user: 'ann@example.com', session: first.session });
  entered = await first.enter();
  assert.equal(entered.kind, 'Unauthenticated', 'once'); // I49
  console.log('a session began by a touch, once');

  // As another user, and a minute late.
  const late = await begin(ann, 'ann');
  await page.goto(late.url);
  await touch(page);
  await play(ann.context, 'who?name=eve');
  entered = await play(ann.context, `enter?name=ann&session=0190d7a4-6ba1-4000-8000-000000000001`);
  assert.equal(entered.kind, 'Unauthenticated', 'another session');
  await play(ann.context, 'later?seconds=61');
  entered = await late.enter();
  assert.equal(entered.kind, 'Denied', entered.said); // I49
  console.log('nothing began before the touch, too late after it, or elsewhere');
  return answer;
}

async function attacks(ann, answer) {
  const replayed = await begin(ann, 'ann');
  await ann.page.goto(replayed.url);
  let refused = await send(ann.context, replayed.url, await asked(ann.page), answer);
  assert.equal(refused.status, 400, refused.text); // I48
  assert.match(refused.text, /not the right one/);
  assert.equal((await replayed.enter()).kind, 'Unauthenticated');
  console.log('a replayed answer began nothing');

  const eve = await withKey();
  await logIn(eve, 'eve');
  await addKey(eve);
  const { credentials: [hers] } = await eve.cdp.send('WebAuthn.getCredentials', { authenticatorId: eve.authenticatorId });
  const known = hers.credentialId.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  const stolen = await begin(ann, 'ann');
  await eve.page.goto(stolen.url);
  const question = await asked(eve.page);
  const foreign = { publicKey: { ...question.options.publicKey, allowCredentials: [{ type: 'public-key', id: known }] } };
  refused = await send(eve.context, stolen.url, question, await answerOf(eve.page, foreign));
  assert.equal(refused.status, 400, refused.text); // I48
  // Ann's own browser comes second, and is told.
  const second = await ann.page.goto(stolen.url);
  assert.equal(second.status(), 403);
  assert.match(await ann.page.textContent('main'), /opened in another browser/);
  assert.equal((await stolen.enter()).kind, 'Unauthenticated');
  console.log('no other browser and no other user answers for a session');

  // The same number once more, for another user: what the key was asked for the first one is no answer to the second.
  const own = await begin(eve, 'eve');
  await eve.page.goto(own.url);
  const one = await asked(eve.page);
  await eve.page.goto(own.url);
  const two = await asked(eve.page);
  const taken = await send(eve.context, own.url, one, await answerOf(eve.page, one.options));
  assert.equal(taken.status, 200, taken.text);
  assert.deepEqual(await own.enter(), { user: 'eve@example.com', session: own.session });
  const again = await begin(ann, 'ann', own.session);
  await eve.page.goto(again.url);
  const { csrf } = await asked(eve.page);
  refused = await send(eve.context, again.url, { csrf, token: two.token }, await answerOf(eve.page, two.options));
  assert.equal(refused.status, 403, refused.text); // I48, I49
  assert.equal((await again.enter()).kind, 'Unauthenticated');
  await eve.context.close();
  console.log('a question that comes again under its number is another one');
}

/// tsh runs elsewhere and shows a code; the browser here has never been at this proxy.
async function device() {
  const { context, page } = await withKey();
  await play(context, 'who?name=ann');
  const { code } = await play(context, 'device');
  await page.goto(`${base}/web/device`);
  await check(page, 'live-device');
  const field = page.locator('input[name=code]');
  await field.fill('BCDF-GHJK');
  await page.keyboard.press('Enter');
  await page.getByText('no such code').waitFor();
  await page.goto(`${base}/web/device`);
  await page.locator('input[name=code]').fill(code.toLowerCase().replace('-', ' '));
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Is this you?' }).waitFor();
  await check(page, 'live-device-confirm');
  const shown = await page.textContent('main');
  assert.ok(shown.includes(code) && shown.includes('build-7') && shown.includes('ann@example.com'), shown); // I41
  await page.getByRole('button', { name: 'log in' }).click();
  await page.getByRole('heading', { name: 'You are logged in' }).waitFor();
  await check(page, 'live-device-done');
  await context.close();
  console.log('a program elsewhere was logged in by its code');
}
