'use strict'

// The real hypercore 11, hypercore 10 and corestore behind JSON lines, for differential tests from Go.
//
// Many cores live in one process, each under the handle it was opened with, each in a fresh directory that is removed
// at the end. Binary values are hex. `?` marks what may be left out. A method that changes a core answers its head:
// {length, fork, byteLength, treeHash, signature}; byteLength counts what the tree counts, so 8 bytes of padding a block
// are in it where blocks are encrypted. Errors keep the `code` of hypercore-errors; NO_DATA is ours, for a request that
// a real peer answers with a noData message.
//
//   versions {}                                        -> {node, hypercore, hypercore10, corestore}
//   open {handle, seed?, manifest?, key?, compat?, encryptionKey?, blockKey?, package?: "11" | "10"}
//                                                      -> {key, discoveryKey, manifestHex | null, length, fork, writable, compat}
//       seed is the Ed25519 seed of the writer; with neither seed, key nor manifest a random writer is made.
//       blockKey says that encryptionKey is the key of the blocks itself.
//       manifest is an object with hex in it, or hex of its encoding.
//   append {handle, blocks[]}                          -> head
//   appendSigned {handle, blocks[], signature}         -> head
//   truncate {handle, length, fork?}                   -> head
//   clear {handle, start, end?}                        -> {contiguousLength}
//   has {handle, index}                                -> {has}
//   get {handle, index, raw?}                          -> {value | null}
//   seek {handle, bytes}                               -> {found: {index, offset} | null}
//   info {handle}                                      -> head and {key, discoveryKey, manifestHex, contiguousLength, padding, roots[]}
//   nodes {handle, indices[]}                          -> {nodes: [{index, size, hash} | null]}
//   dump {handle, nodes?, blocks?}                     -> head and {nodes[], blocks[]}
//       all nodes below the number nodes (2 * length) and all blocks below blocks (length), raw, null where not held.
//   dropNode {handle, index}                           -> null; removes a node that a core of package 11 should not have
//   proof {handle, fork?, block?, hash?, seek?, upgrade?, manifest?} or {handle, requestHex}
//                                                      -> {request, requestHex, proof, dataHex}
//   proofs {handle, requests[]}                        -> {proofs: [{dataHex} | {code, message}]}, a request as in proof
//   randomProofs {handle, count, seed, refused?}       -> {proofs: [{request, requestHex, proof, dataHex}], unverifiable,
//                                                          refused: [{request, requestHex, code, message}]}
//       every proof was accepted by the package's own verifier; refused asks for the requests that were not answered, too.
//   applyProof {handle, dataHex}                       -> {applied, length, fork, finished?, want?}
//       with a higher fork this is reorgStart, and reorgCommit when that is already finished.
//   judge {handle, dataHexes[]}                        -> {verdicts: [{accepted, code, message}]}, and changes nothing
//       what applyProof would say to each, for a core of package 11.
//   checkConflict {handle, dataHex}                    -> {conflict, frozen}; package 11 answers true to a lie, too
//   reorgStart {handle, dataHex}                       -> {finished, want: {start, end, nodes} | null, ancestors}
//   reorgUpdate {handle, dataHex}                      -> the same
//   reorgCommit {handle}                               -> {applied, length, fork}
//   missingNodes {handle, index}                       -> {nodes}, for block index
//   missing {handle, indices[]}                        -> {nodes[]}, for tree nodes
//   encrypt {key, encryptionKey, compat?, blockKey?, index, fork, value} -> {value}, the stored form of a block
//   sign {seed, messageHex}                            -> {publicKey, signature}
//   signable {handle, length?, fork?, key?, manifest?, signer?} -> {signable}
//       key and manifest are those of another core whose signer signs this core's tree.
//   verifyBatch {handle, length?, fork?, signature?}   -> {valid}
//   partialSignature {handle, signer, from, to?, signature?} -> {signer, signature, patch, nodes | null}
//   assemble {inputs[], version?}                      -> {signature}
//   manifestKey {manifest, package?}                   -> {key, discoveryKey, manifestHex}
//   corestore {primaryKey, namespaces[], name, manifestVersion?} -> {publicKey, secretKey, key, discoveryKey, manifestHex}
//       a namespace is a string, or {hex} for bytes.
//   close {handle}                                     -> null

const Corestore = require('corestore')
const { open, packageOf, manifestOf } = require('./lib/core')
const { hex, bytes, plain } = require('./lib/hex')
const { serve, tempDir, removeDir, coded } = require('./lib/lines')
const random = require('./lib/random')

const open11 = packageOf('11')
const handles = new Map() // handle => {core, dir, reorg}

function entry (handle) {
  const e = handles.get(handle)
  if (!e) throw coded('BAD_ARGUMENT', 'no core is open as ' + handle)
  return e
}

function encodeManifest (pkg, manifest) {
  return manifest ? hex(pkg.c.encode(pkg.messages.manifest, manifest)) : null
}

async function head (core) {
  const { length, fork, byteLength, signature } = core
  return { length, fork, byteLength, treeHash: hex(await core.treeHash()), signature: hex(signature) }
}

function requestOf (core, p) {
  if (p.requestHex) return core.decodeRequest(bytes(p.requestHex))
  return {
    id: 1,
    fork: p.fork === undefined ? core.fork : p.fork,
    block: p.block ? { nodes: 0, ...p.block } : null,
    hash: p.hash ? { nodes: 0, ...p.hash } : null,
    seek: p.seek ? { padding: 0, ...p.seek } : null,
    upgrade: p.upgrade || null,
    manifest: !!p.manifest,
    priority: 0
  }
}

async function prove (core, request) {
  const proof = await core.prove(request)
  return {
    request: plain(request),
    requestHex: hex(core.encodeRequest(request)),
    proof: plain(proof),
    dataHex: hex(core.encodeData(proof, request.id))
  }
}

function reorgState (batch) {
  return { finished: batch.finished, want: batch.want && { ...batch.want }, ancestors: batch.ancestors }
}

const methods = {
  versions () {
    return {
      node: process.version,
      hypercore: open11.version,
      hypercore10: packageOf('10').version,
      corestore: require('corestore/package.json').version
    }
  },

  async open ({ handle, seed, manifest, key, compat, encryptionKey, blockKey, package: name }) {
    if (handle === undefined || handles.has(handle)) throw coded('BAD_ARGUMENT', 'open needs a handle of its own')
    const pkg = packageOf(name)
    const m = manifestOf(pkg, manifest)
    const keyPair = seed ? pkg.crypto.keyPair(bytes(seed)) : null
    // Without a seed, naming the key keeps the packages from making up a key pair that the manifest does not know.
    const coreKey = bytes(key) || (m && !keyPair ? pkg.Verifier.manifestHash(m) : null)
    const dir = tempDir()
    const core = await open(dir, {
      package: name,
      key: coreKey,
      keyPair,
      manifest: m,
      compat: !!compat,
      encryptionKey: bytes(encryptionKey),
      blockKey: !!blockKey
    })
    handles.set(handle, { core, dir, reorg: null })
    return {
      key: hex(core.key),
      discoveryKey: hex(core.discoveryKey),
      manifestHex: encodeManifest(pkg, core.manifest),
      length: core.length,
      fork: core.fork,
      writable: core.core.writable,
      compat: core.compat
    }
  },

  async append ({ handle, blocks }) {
    const { core } = entry(handle)
    await core.core.append(blocks.map(bytes))
    return head(core)
  },

  async appendSigned ({ handle, blocks, signature }) {
    const { core } = entry(handle)
    await core.core.append(blocks.map(bytes), { signature: bytes(signature) })
    return head(core)
  },

  async truncate ({ handle, length, fork }) {
    const { core } = entry(handle)
    await core.core.truncate(length, { fork })
    return head(core)
  },

  async clear ({ handle, start, end }) {
    const { core } = entry(handle)
    await core.core.clear(start, end === undefined ? start + 1 : end)
    return { contiguousLength: core.core.contiguousLength }
  },

  has ({ handle, index }) {
    return { has: entry(handle).core.has(index) }
  },

  async get ({ handle, index, raw }) {
    return { value: hex(await entry(handle).core.core.get(index, { wait: false, raw: !!raw })) }
  },

  async seek ({ handle, bytes }) {
    const at = await entry(handle).core.core.seek(bytes, { wait: false })
    return { found: at && { index: at[0], offset: at[1] } }
  },

  async info ({ handle }) {
    const { core } = entry(handle)
    return {
      ...(await head(core)),
      key: hex(core.key),
      discoveryKey: hex(core.discoveryKey),
      manifestHex: encodeManifest(core.pkg, core.manifest),
      contiguousLength: core.core.contiguousLength,
      padding: core.core.padding,
      roots: plain(await core.roots(core.length))
    }
  },

  async nodes ({ handle, indices }) {
    const { core } = entry(handle)
    return { nodes: plain(await Promise.all(indices.map((i) => core.node(i)))) }
  },

  async dump ({ handle, nodes, blocks }) {
    const { core } = entry(handle)
    const out = { ...(await head(core)), nodes: [], blocks: [] }
    const nodesTo = nodes === undefined ? 2 * core.length : nodes
    const blocksTo = blocks === undefined ? core.length : blocks
    for (let i = 0; i < nodesTo; i++) out.nodes.push(core.node(i))
    for (let i = 0; i < blocksTo; i++) out.blocks.push(core.has(i) ? core.core.get(i, { wait: false, raw: true }) : null)
    out.nodes = plain(await Promise.all(out.nodes))
    out.blocks = plain(await Promise.all(out.blocks))
    return out
  },

  async dropNode ({ handle, index }) {
    const tx = entry(handle).core.core.core.storage.write()
    tx.deleteTreeNode(index)
    await tx.flush()
    return null
  },

  async proof (p) {
    const { core } = entry(p.handle)
    return prove(core, requestOf(core, p))
  },

  async proofs ({ handle, requests }) {
    const { core } = entry(handle)
    const proofs = []
    for (const r of requests) {
      try {
        const { dataHex } = await prove(core, requestOf(core, r))
        proofs.push({ dataHex })
      } catch (err) {
        proofs.push({ code: err.code || err.name, message: err.message })
      }
    }
    return { proofs }
  },

  async randomProofs ({ handle, count, seed, refused = false }) {
    const { core } = entry(handle)
    const { fork, length, byteLength } = core
    if (!length) throw coded('BAD_ARGUMENT', 'an empty core proves nothing')
    const paddings = core.core.padding ? [0, core.core.padding] : [0]
    const next = random.generator(seed)
    const out = { proofs: [], unverifiable: 0, refused: [] }
    for (let tries = 0; out.proofs.length < count && tries < 100 * count; tries++) {
      const request = random.request(next, { fork, length, byteLength, paddings })
      try {
        const p = await prove(core, request)
        if (await core.check(core.decodeData(bytes(p.dataHex)))) out.proofs.push(p)
        else out.unverifiable++
      } catch (err) {
        const requestHex = hex(core.encodeRequest(request))
        if (refused) out.refused.push({ request, requestHex, code: err.code || '', message: err.message })
      }
    }
    return out
  },

  async applyProof ({ handle, dataHex }) {
    const e = entry(handle)
    const { core } = e
    const proof = core.decodeData(bytes(dataHex))
    if (proof.fork <= core.fork) {
      const applied = await core.verify(proof)
      return { applied, length: core.length, fork: core.fork }
    }
    const state = await methods.reorgStart({ handle, dataHex })
    if (state.finished) return methods.reorgCommit({ handle })
    return { applied: false, length: core.length, fork: core.fork, ...state }
  },

  async judge ({ handle, dataHexes }) {
    const { core } = entry(handle)
    const verdicts = []
    for (const dataHex of dataHexes) {
      try {
        verdicts.push({ accepted: await core.judge(core.decodeData(bytes(dataHex))), code: '', message: '' })
      } catch (err) {
        verdicts.push({ accepted: false, code: err.code || err.name, message: err.message })
      }
    }
    return { verdicts }
  },

  async checkConflict ({ handle, dataHex }) {
    const { core } = entry(handle)
    const log = console.log
    console.log = () => {} // the package prints, and stdout is ours
    try {
      const conflict = await core.core.core.checkConflict(core.decodeData(bytes(dataHex)), null)
      return { conflict, frozen: !!core.core.core.header.frozen }
    } finally {
      console.log = log
    }
  },

  async reorgStart ({ handle, dataHex }) {
    const e = entry(handle)
    const proof = e.core.decodeData(bytes(dataHex))
    if (!proof.upgrade) throw coded('BAD_ARGUMENT', 'a reorg starts with an upgrade')
    e.reorg = await e.core.reorgStart(proof)
    return reorgState(e.reorg)
  },

  async reorgUpdate ({ handle, dataHex }) {
    const e = entry(handle)
    if (!e.reorg) throw coded('BAD_ARGUMENT', 'no reorg was started')
    await e.reorg.update(e.core.decodeData(bytes(dataHex)))
    return reorgState(e.reorg)
  },

  async reorgCommit ({ handle }) {
    const e = entry(handle)
    if (!e.reorg || !e.reorg.finished) throw coded('BAD_ARGUMENT', 'no finished reorg to commit')
    const batch = e.reorg
    e.reorg = null
    const applied = await e.core.reorgCommit(batch)
    return { applied, length: e.core.length, fork: e.core.fork }
  },

  async missingNodes ({ handle, index }) {
    return { nodes: await entry(handle).core.missingNodes(index) }
  },

  async missing ({ handle, indices }) {
    const { core } = entry(handle)
    return { nodes: await Promise.all(indices.map((i) => core.missing(i))) }
  },

  encrypt ({ key, encryptionKey, compat, blockKey, index, fork, value }) {
    const { DefaultEncryption } = open11.Hypercore
    const options = { compat: !!compat, block: !!blockKey }
    const keys = DefaultEncryption.deriveKeys(bytes(encryptionKey), bytes(key), options)
    const block = Buffer.concat([Buffer.alloc(DefaultEncryption.PADDING), bytes(value)])
    DefaultEncryption.encrypt(index, block, fork, keys.block, keys.blinding)
    return { value: hex(block) }
  },

  sign ({ seed, messageHex }) {
    const { publicKey, secretKey } = open11.crypto.keyPair(bytes(seed))
    return { publicKey: hex(publicKey), signature: hex(open11.crypto.sign(bytes(messageHex), secretKey)) }
  },

  async signable ({ handle, length, fork, key, manifest, signer }) {
    const { core } = entry(handle)
    const m = manifestOf(core.pkg, manifest)
    const k = bytes(key) || (m ? core.pkg.Verifier.manifestHash(m) : core.key)
    return { signable: hex(await core.signable({ length, fork, key: k, manifest: m || core.manifest, signer })) }
  },

  async verifyBatch ({ handle, length, fork, signature }) {
    const { core } = entry(handle)
    const batch = await core.batchAt(length === undefined ? core.length : length, fork === undefined ? core.fork : fork)
    return { valid: !!core.verifier.verify(batch, bytes(signature) || core.signature) }
  },

  async partialSignature ({ handle, signer, from, to, signature }) {
    const { core } = entry(handle)
    return plain(await core.partialSignature(signer, from, to, bytes(signature) || undefined))
  },

  assemble ({ inputs, version = 1 }) {
    const { multisig } = open11
    const parts = inputs.map(({ signer, signature, patch = 0, nodes = null }) => ({
      signer,
      signature: bytes(signature),
      patch,
      nodes: nodes && nodes.map(({ index, size, hash }) => ({ index, size, hash: bytes(hash) }))
    }))
    return { signature: hex(version === 0 ? multisig.assemblev0(parts) : multisig.assemble(parts)) }
  },

  manifestKey ({ manifest, package: name }) {
    const pkg = packageOf(name)
    const m = manifestOf(pkg, manifest)
    const key = pkg.Verifier.manifestHash(m)
    return { key: hex(key), discoveryKey: hex(pkg.crypto.discoveryKey(key)), manifestHex: encodeManifest(pkg, m) }
  },

  async corestore ({ primaryKey, namespaces = [], name, manifestVersion }) {
    const dir = tempDir()
    const root = new Corestore(dir, { primaryKey: bytes(primaryKey), unsafe: true, manifestVersion })
    try {
      await root.ready()
      let store = root
      for (const ns of namespaces) store = store.namespace(typeof ns === 'string' ? ns : bytes(ns.hex))
      const core = store.get({ name })
      await core.ready()
      const { publicKey, secretKey } = await store.createKeyPair(name)
      return {
        publicKey: hex(publicKey),
        secretKey: hex(secretKey),
        key: hex(core.key),
        discoveryKey: hex(core.discoveryKey),
        manifestHex: encodeManifest(open11, core.manifest)
      }
    } finally {
      await root.close()
      removeDir(dir)
    }
  },

  async close ({ handle }) {
    const { core, dir } = entry(handle)
    handles.delete(handle)
    await core.core.close()
    removeDir(dir)
    return null
  }
}

serve(methods, {
  ready: methods.versions(),
  close: () => Promise.all([...handles.keys()].map((handle) => methods.close({ handle })))
})
