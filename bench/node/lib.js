'use strict'

// What the peer side of every benchmark shares. A script is run as
//
//   node append.js dir=/some/empty/folder unit=blocks/s block=100 count=20000 batch=1
//
// and prints one JSON line {name, value, unit, extra}. bench/harness.go writes the words and reads the line; the Go side
// of a benchmark gets the same words. The packages are those of interop/node.

const crypto = require('crypto')
const fs = require('fs')
const path = require('path')

const modules = path.join(__dirname, '..', '..', 'interop', 'node')

function load (name) {
  return require(require.resolve(name, { paths: [modules] }))
}

// work reads the words of the command line; what looks like a number is one.
function work () {
  return Object.fromEntries(process.argv.slice(2).map((word) => {
    const at = word.indexOf('=')
    const value = word.slice(at + 1)
    return [word.slice(0, at), /^\d+$/.test(value) ? Number(value) : value]
  }))
}

const POOL = 16 << 20
const STRIDE = 99991 // a prime: no two blocks near each other share bytes, so nothing compresses

// blocks returns a function from a block's index to its incompressible bytes, the same every time and the same as in log.go.
// Nothing is generated while time is taken.
function blocks (size) {
  const zeros = Buffer.alloc(16)
  const pool = crypto.createCipheriv('aes-128-ctr', zeros, zeros).update(Buffer.alloc(POOL + size))
  return (i) => {
    const at = (i * STRIDE) % POOL
    return pool.subarray(at, at + size)
  }
}

// indexes returns the same random numbers below n as indexes in log.go: xorshift32 from 1.
function indexes (n) {
  let x = 1
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return (x >>> 0) % n
  }
}

async function appendAll (core, { block, count, batch }) {
  const at = blocks(block)
  for (let i = 0; i < count;) {
    const values = []
    for (; values.length < batch && i < count; i++) values.push(at(i))
    await core.append(values)
  }
}

// beeKey is the key of an entry of a tree, as in bee.go.
function beeKey (i) {
  return Buffer.from('key-' + String(i).padStart(8, '0'))
}

// putAll puts count entries, each once, in no order.
async function putAll (bee, { block, count, batch }) {
  const at = blocks(block)
  for (let i = 0; i < count;) {
    if (batch === 1) {
      await bee.put(beeKey((i * 7919) % count), at(i))
      i++
      continue
    }
    const b = bee.batch()
    for (const end = Math.min(i + batch, count); i < end; i++) await b.put(beeKey((i * 7919) % count), at(i))
    await b.flush()
  }
}

// drivePath is the path of a file of a drive, as in drive.go.
function drivePath (i) {
  return '/folder-' + String(i % 40).padStart(2, '0') + '/file-' + String(i).padStart(6, '0') + '.bin'
}

async function putFiles (drive, { block, count }) {
  const at = blocks(block)
  for (let i = 0; i < count; i++) await drive.put(drivePath(i), at(i))
}

// timed runs fn and returns the seconds and CPU seconds that it took.
async function timed (fn) {
  const cpu = process.cpuUsage()
  const start = process.hrtime.bigint()
  await fn()
  const seconds = Number(process.hrtime.bigint() - start) / 1e9
  const { user, system } = process.cpuUsage(cpu)
  return { seconds, cpuSeconds: (user + system) / 1e6 }
}

function percentile (sorted, p) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]
}

function residentMiB () {
  return process.memoryUsage().rss / (1 << 20)
}

// fileHandles is undefined, and so not reported, where there is no /proc.
function fileHandles () {
  if (!fs.existsSync('/proc/self/fd')) return undefined
  return fs.readdirSync('/proc/self/fd').length - 1 // not the one that reads the folder
}

function diskBytes (dir) {
  let sum = 0
  for (const f of fs.readdirSync(dir, { withFileTypes: true, recursive: true })) {
    if (f.isFile()) sum += fs.statSync(path.join(f.parentPath || f.path, f.name)).size
  }
  return sum
}

// switches is the number of times that each thread of this process was taken off a CPU, by thread.
function switches () {
  const out = new Map()
  for (const tid of fs.readdirSync('/proc/self/task')) {
    let sum = 0
    for (const m of fs.readFileSync('/proc/self/task/' + tid + '/status', 'utf8').matchAll(/ctxt_switches:\s*(\d+)/g)) {
      sum += Number(m[1])
    }
    out.set(tid, sum)
  }
  return out
}

function switchesSince (before) {
  const now = switches()
  let sum = 0
  for (const [tid, n] of now) sum += n - (before.get(tid) || 0)
  return { switches: sum, threads: now.size }
}

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))

// report runs the measurement, prints its line and ends the process.
function report (pkg, measure) {
  const w = work()
  measure(w).then(({ value, extra }) => {
    const name = pkg + ' ' + load(pkg + '/package.json').version + ', node ' + process.versions.node
    const maxRssMiB = process.resourceUsage().maxRSS / 1024
    const line = JSON.stringify({ name, value, unit: w.unit, extra: { ...extra, maxRssMiB } })
    process.stdout.write(line + '\n', () => process.exit())
  }, (err) => {
    console.error(err)
    process.exit(1)
  })
}

module.exports = {
  load,
  work,
  blocks,
  indexes,
  appendAll,
  beeKey,
  putAll,
  drivePath,
  putFiles,
  timed,
  percentile,
  residentMiB,
  fileHandles,
  diskBytes,
  switches,
  switchesSince,
  sleep,
  report
}
