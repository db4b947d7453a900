'use strict'

// What the suite does not look at: a door's limits, and its end.
//
//	node test/limits.js ws://127.0.0.1:4234/ TOKEN

const test = require('tape')
const { BevyLevel } = require('bevy-client/level')

const [url, token] = process.argv.slice(2)
let databases = 0
const fresh = (options) => new BevyLevel(url + 'limits/' + databases++, { token, ...options })

// fails is the code of the error that a promise ends with.
const fails = async (promise) => {
  try {
    await promise
  } catch (err) {
    return err.code
  }
}

test('bytes and text of all kinds come back as they were', async (t) => {
  const db = fresh({ keyEncoding: 'buffer', valueEncoding: 'buffer' })
  const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
  const kinds = ['', '\0', '\ufeffbom', '\u2028<&>"\\', 'ž😀', '{"base64":"AA=="}'].map((s) => Buffer.from(s))
  for (const b of [...kinds, every, Buffer.from([0xff]), Buffer.from([0xed, 0xa0, 0x80])]) {
    await db.put(b, b)
    t.same(await db.get(b), b)
    t.same(await db.iterator({ gte: b, lte: b }).all(), [[b, b]])
  }
  const text = { keyEncoding: 'utf8', valueEncoding: 'utf8' }
  for (const b of kinds) t.is(await db.get(b.toString(), text), b.toString())
  t.is(await db.get(every, { valueEncoding: 'utf8' }), every.toString())
  await db.close()
})

test('what is larger than a reply comes in several', async (t) => {
  const db = fresh()
  const keys = Array.from({ length: 8 }, (_, i) => 'k' + i)
  const value = 'v'.repeat(600_000)
  await Promise.all(keys.map((key) => db.put(key, value)))
  t.same(await db.getMany([...keys, 'none']), [...keys.map(() => value), undefined])
  t.same((await db.iterator().all()).map(([key]) => key), keys)
  t.same(await db.keys({ limit: 5, reverse: true }).all(), keys.slice(3).reverse())
  await db.close()
})

test('a request that is too large fails, and no other', async (t) => {
  const db = fresh()
  t.is(await fails(db.put('k', 'v'.repeat(17 << 20))), 'LEVEL_NOT_SUPPORTED')
  await db.put('k', 'v'.repeat(15_000_000))
  t.is((await db.get('k')).length, 15_000_000)
  await db.close()
})

test('iterators and snapshots are no more than so many', async (t) => {
  const db = fresh()
  await db.put('a', '1')
  const snapshots = Array.from({ length: 1025 }, () => db.snapshot())
  t.is(await db.get('a', { snapshot: snapshots[1023] }), '1')
  t.is(await fails(db.get('a', { snapshot: snapshots[1024] })), 'LEVEL_NOT_SUPPORTED', 'says why')
  t.is(await fails(db.iterator().next()), 'LEVEL_NOT_SUPPORTED')
  await snapshots[0].close()
  t.same(await db.iterator().all(), [['a', '1']])
  await db.close()
})

test('a wrong token and a door that is not there are errors of open()', async (t) => {
  const wrong = fresh({ token: 'wrong' })
  const err = await wrong.open().catch((err) => err)
  t.is(err.code, 'LEVEL_DATABASE_NOT_OPEN')
  t.is(err.cause.code, 'LEVEL_CONNECTION_LOST')
  t.match(err.cause.message, /401|101/) // which not every WebSocket knows
})

test('two clients see one database', async (t) => {
  const a = new BevyLevel(url + 'shared', { token })
  const b = new BevyLevel(url + 'shared', { token })
  await a.put('k', 'of a')
  t.is(await b.get('k'), 'of a')
  const snapshot = b.snapshot()
  await b.get('k')
  await a.put('k', 'changed')
  t.is(await b.get('k', { snapshot }), 'of a')
  await a.close()
  t.is(await b.get('k'), 'changed')
  await b.close()
})

test('a database can be opened again after its connection was lost', async (t) => {
  const db = fresh()
  await db.put('k', 'v')
  const it = db.iterator()
  const ends = await fetch(url.replace('ws', 'http') + 'end').then(() => fails(db.get('k')))
  t.is(ends, 'LEVEL_CONNECTION_LOST')
  t.is(await fails(it.next()), 'LEVEL_CONNECTION_LOST')
  await db.close()
  await db.open()
  t.is(await db.get('k'), 'v')
  await db.close()
})
