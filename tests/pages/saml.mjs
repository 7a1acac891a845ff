// A person in a real browser logs tsh in by SAML: every page goes on as it does for people, scripts, cookies and policies as they are.
// Arguments: the page that tsh says to open, and the code that it shows. Prints a line when tsh has its answer.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const require = createRequire(process.env.REMOTELER_TEST_PAGES + '/');
const { chromium } = require('playwright-core');

const [login, code] = process.argv.slice(2);
const browser = await chromium.launch({ timeout: 120_000, executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const complaints = [];
  page.on('console', (line) => line.type() === 'error' && complaints.push(line.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  const visited = [];
  page.on('request', (request) => request.isNavigationRequest() && visited.push(`${request.method()} ${new URL(request.url()).host}`));
  await page.goto(login, { waitUntil: 'commit' });
  // Through our own page that posts, the provider's that posts back (another site: our cookie is not sent), and back with the cookie.
  await page.getByRole('heading', { name: 'Is this you?' }).waitFor();
  const ours = new URL(login).host;
  assert.equal(visited.filter((step) => step === `POST ${ours}`).length, 1, visited.join(', '));
  assert.equal(visited.filter((step) => step.startsWith('POST localhost:')).length, 1, visited.join(', '));
  assert.ok((await page.textContent('main')).includes(code));
  await page.getByRole('button', { name: 'log in' }).click();
  await page.getByText('You may close this tab').first().waitFor();
  assert.deepEqual(complaints.filter((line) => !/favicon|status of 4/.test(line)), []);
  console.log('the browser brought tsh its answer');
} finally {
  await browser.close();
}
