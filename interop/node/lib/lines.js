'use strict'

// A peer that speaks JSON lines: one request a line on stdin, one answer a line on stdout.
//
//   request   {"id": 7, "method": "append", "params": {"handle": "a", "blocks": ["00ff"]}}
//   answer    {"id": 7, "result": {...}}  or  {"id": 7, "error": {"message": "...", "code": "...", "stack": "..."}}
//
// The first line written is {"ready": ...}. Requests that name the same handle are answered in the order they came;
// others may overtake each other. The end of stdin is the order to end: close() runs, then the process exits.

const fs = require('fs')
const os = require('os')
const path = require('path')
const readline = require('readline')

// stdout belongs to the protocol; what packages print goes where a person looks for it.
console.log = console.info = console.debug = console.error

const dirs = new Set()

// tempDir makes a fresh directory that is gone when the process is.
function tempDir () {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'bevy-peer-'))
  dirs.add(dir)
  return dir
}

function removeDir (dir) {
  dirs.delete(dir)
  fs.rmSync(dir, { recursive: true, force: true })
}

function serve (methods, { ready = {}, close = () => {} } = {}) {
  const last = new Map() // handle => promise of its newest request

  async function answer (id, method, params) {
    let out = null
    try {
      if (!Object.hasOwn(methods, method)) throw coded('UNKNOWN_METHOD', 'no method is named ' + method)
      const result = await methods[method](params)
      out = { id, result: result === undefined ? null : result }
    } catch (err) {
      out = { id, error: describe(err) }
    }
    process.stdout.write(JSON.stringify(out) + '\n')
  }

  const input = readline.createInterface({ input: process.stdin, crlfDelay: Infinity })

  input.on('line', (line) => {
    const { id, method, params } = JSON.parse(line)
    const p = params || {}
    if (p.handle === undefined) return answer(id, method, p)
    const turn = (last.get(p.handle) || Promise.resolve()).then(() => answer(id, method, p))
    last.set(p.handle, turn)
    turn.then(() => { if (last.get(p.handle) === turn) last.delete(p.handle) })
  })

  input.on('close', async () => {
    await Promise.all(last.values())
    try {
      await close()
    } catch (err) {
      console.error(err)
      process.exitCode = 1
    }
    process.stdout.write('', () => process.exit()) // not before the last answer is out
  })

  process.on('exit', () => { for (const dir of dirs) removeDir(dir) })
  process.on('SIGTERM', () => process.exit(143))
  process.on('SIGINT', () => process.exit(130))

  process.stdout.write(JSON.stringify({ ready }) + '\n')
}

function describe (err) {
  if (!(err instanceof Error)) return { message: String(err), code: '', stack: '' }
  return { message: err.message, code: err.code ? String(err.code) : '', stack: err.stack || '' }
}

function coded (code, message) {
  return Object.assign(new Error(message), { code })
}

module.exports = { serve, tempDir, removeDir, coded }
