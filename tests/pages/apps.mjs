// Drives a real browser to web apps. Arguments: address of the proxy, of an app, of another app (or `socket`, `factor`, `key`), user, password, for `key` a sign-up link.
// Says what was shown, line by line, and waits for a line where the test has something to do meanwhile. Whatever is wrong ends it with an error.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(process.env.REMOTELER_TEST_PAGES + '/');
const { chromium } = require('playwright-core');

const [base, app, other, user, password, link] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const browser = await chromium.launch({ timeout: 120_000, executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  if (other === 'factor') await factor(page);
  else if (other === 'key') await key(context, page);
  else if (other === 'socket') await socket(page);
  else await wholeWay(context, page);
} finally {
  await browser.close();
}

/// From the app's address over the login back to it.
async function comeIn(page) {
  await page.goto(`${app}/page?x=1`);
  assert.ok(page.url().startsWith(base), page.url());
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByLabel('User name').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'The app' }).waitFor().catch(async (cause) => {
    throw new Error(`${cause.message}\n${page.url()} shows: ${await page.textContent('body')}`);
  });
  assert.equal(page.url(), `${app}/page?x=1`);
}

async function line() {
  return (await lines.next()).value;
}

/// The same by somebody who has an authenticator app, for an app whose sessions want a code each.
async function factor(page) {
  await page.goto(`${app}/page`);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByLabel('User name').fill(user);
  await page.getByLabel('Password').fill(password);
  console.log('the login wants a code');
  await page.getByLabel('One-time code').fill(await line());
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: /^Go to / }).waitFor();
  console.log('the session wants a code');
  await page.getByLabel('One-time code').fill(await line());
  await page.keyboard.press('Enter');
  await page.getByRole('alert').filter({ hasText: 'code' }).waitFor();
  console.log('a wrong code is told');
  await page.getByLabel('One-time code').fill(await line());
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'The app' }).waitFor();
  assert.equal(page.url(), `${app}/page`);
  console.log('the app is shown');
}

/// The same by somebody who signs up with a security key.
async function key(context, page) {
  const devtools = await context.newCDPSession(page);
  await devtools.send('WebAuthn.enable');
  const options = {
    protocol: 'ctap2', transport: 'usb', hasResidentKey: false, hasUserVerification: true, isUserVerified: true,
    automaticPresenceSimulation: true,
  };
  await devtools.send('WebAuthn.addVirtualAuthenticator', { options });
  await page.goto(link);
  await page.getByLabel('New password').fill(password);
  await page.getByLabel('The same password again').fill(password);
  await press(page, 'Save with a security key');
  await page.getByRole('heading', { name: 'Your account is ready' }).waitFor();

  await page.goto(`${app}/page`);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByLabel('User name').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Use your security key' }).waitFor();
  await press(page, 'Use the security key');
  await page.getByRole('heading', { name: /^Go to / }).waitFor();
  console.log('the session wants a touch');
  await lines.next();
  await press(page, 'Use the security key');
  await page.getByRole('heading', { name: 'The app' }).waitFor();
  assert.equal(page.url(), `${app}/page`);
  console.log('the app is shown');
}

/// Clicks what asks the key, once the page's script is there to do it.
async function press(page, button) {
  await page.waitForLoadState('load');
  await page.getByRole('button', { name: button }).click();
}

async function openSocket(page) {
  await page.evaluate((url) => new Promise((done, failed) => {
    const socket = new WebSocket(url);
    window.closed = new Promise((closed) => { socket.onclose = () => closed(true); });
    socket.onmessage = () => done();
    socket.onerror = () => failed(new Error('no socket'));
  }), `${app.replace('https', 'wss')}/ws`);
}

async function socket(page) {
  await comeIn(page);
  await openSocket(page);
  console.log('the socket ticks');
  await page.evaluate(() => window.closed);
  console.log('the socket is closed');
}

async function wholeWay(context, page) {
  await comeIn(page);
  const shown = await page.evaluate(async () => (await fetch('/echo', { method: 'POST', body: 'own' })).json());
  const fields = new Map(shown.headers);
  assert.ok(fields.get('remoteler-jwt-assertion').split('.').length === 3);
  assert.equal(fields.get('x-forwarded-host'), new URL(app).host);
  assert.equal(fields.get('origin'), `http://${fields.get('host')}`, 'what the app compares is equal');
  assert.ok(!JSON.stringify(shown).includes('__Host-remoteler'), 'our cookies stay with us');
  await page.evaluate(() => fetch('/cookies'));
  const cookies = await context.cookies();
  assert.deepEqual(cookies.filter((cookie) => cookie.name === 'wide'), []);
  assert.equal(await page.evaluate(() => document.cookie), 'app=own', 'no script reads the session');
  const own = cookies.filter((cookie) => cookie.name === '__Host-remoteler-app');
  assert.equal(own.length, 1);
  assert.ok(own[0].secure && own[0].httpOnly && own[0].sameSite === 'Lax' && own[0].value !== 'stolen'); // I50
  const followed = await page.evaluate(async () => (await fetch('/redirect')).url);
  assert.equal(followed, `${app}/echo?from=redirect`);
  const events = await page.evaluate(() => new Promise((done) => {
    const source = new EventSource('/events');
    source.onmessage = (event) => { source.close(); done(event.data); };
  }));
  assert.equal(events, '0');
  await openSocket(page);
  console.log('the app is shown');
  await lines.next();

  // The cookie of one app at another one.
  const thief = await browser.newContext({ ignoreHTTPSErrors: true });
  await thief.addCookies([{ name: own[0].name, value: own[0].value, url: `${other}/`, secure: true, httpOnly: true, sameSite: 'Lax' }]);
  const stolen = await thief.newPage();
  await stolen.goto(`${other}/page`);
  assert.ok(stolen.url().startsWith(base), stolen.url()); // I51
  await thief.close();
  const stray = await context.newPage();
  await stray.goto(`${other}/page`);
  await stray.getByRole('heading', { name: 'The app' }).waitFor();
  assert.equal(stray.url(), `${other}/page`, 'one login for all apps');
  const sent = await stray.evaluate(async (to) => {
    const post = await fetch(to, { method: 'POST', mode: 'no-cors', credentials: 'include', body: 'foreign' }).then(() => 'sent', () => 'failed');
    const opened = await new Promise((done) => {
      const socket = new WebSocket(`${to.replace('https', 'wss').replace('/echo', '/ws')}`);
      socket.onmessage = () => done(true);
      socket.onclose = () => done(false);
    });
    return { post, opened };
  }, `${app}/echo`);
  assert.equal(sent.opened, false, 'no page of another app opens a socket here'); // I52
  console.log("another app's page changed nothing");
  await lines.next();

  await page.evaluate(() => { window.polled = fetch('/never').then((answer) => answer.status, String); });
  await stray.goto(`${base}/web/account`);
  await stray.getByRole('button', { name: 'Log out' }).first().click();
  await stray.getByRole('button', { name: 'Log in' }).waitFor();
  const began = Date.now();
  await page.evaluate(() => window.closed);
  assert.equal(await page.evaluate(() => window.polled), 401, 'and so does a request that waits for its answer');
  assert.ok(Date.now() - began < 3000, `the socket ends with the logout, after ${Date.now() - began} ms`); // I50
  const after = await page.evaluate(async () => (await fetch('/echo', { redirect: 'manual' })).status);
  assert.equal(after, 401);
  await page.goto(`${app}/page`);
  assert.ok(page.url().startsWith(base), page.url());
  console.log('out of the app after the logout');
}
