'use strict'

// One face for a core of hypercore 11 and one of hypercore 10, over the packages' own tree, verifier and messages.
// Nothing here decides anything: it finds the same value in the two places where the packages keep it.

const { createRequire } = require('module')
const { bytes } = require('./hex')
const { coded } = require('./lines')

// Each package resolves its dependencies for itself, so each core is used with exactly the code that it runs on.
function load (name) {
  const inside = createRequire(require.resolve(name))
  return {
    version: require(name + '/package.json').version,
    Hypercore: require(name),
    c: inside('compact-encoding'),
    flat: inside('flat-tree'),
    crypto: inside('hypercore-crypto'),
    messages: require(name + '/lib/messages'),
    caps: require(name + '/lib/caps'),
    multisig: require(name + '/lib/multisig'),
    Verifier: require(name + '/lib/verifier'),
    tree: require(name + '/lib/merkle-tree')
  }
}

const packages = { 11: load('hypercore'), 10: load('hypercore10') }

class Core {
  constructor (pkg, core) {
    this.pkg = pkg
    this.core = core
  }

  get key () { return this.core.key }
  get discoveryKey () { return this.core.discoveryKey }
  get manifest () { return this.core.core.header.manifest || null }
  get keyPair () { return this.core.keyPair }
  get compat () { return this.core.core.compat }
  get verifier () { return this.core.core.verifier }
  get length () { return this.head.length }
  get fork () { return this.head.fork }

  // The sizes in the tree: with encryption, 8 bytes of padding a block are in them.
  get byteLength () { return this.head.byteLength }
  get signature () { return this.head.signature }

  async treeHash (length = this.length) {
    return this.pkg.crypto.tree(await this.roots(length))
  }

  has (index) { return this.core.core.bitfield.get(index) }

  // What lib/replicator.js answers a request with, or throws instead of a noData message.
  async prove (request) {
    if (request.block && (request.fork !== this.fork || !this.has(request.block.index))) {
      throw coded('NO_DATA', 'block ' + request.block.index + ' of fork ' + request.fork + ' is not here')
    }
    if (request.fork !== this.fork) throw coded('NO_DATA', 'fork ' + request.fork + ' is not here')
    // The packages write into the request's upgrade.
    const { block, hash, seek, upgrade } = request
    const proof = await this.generate({ block, hash, seek, upgrade: upgrade && { ...upgrade } })
    if (request.manifest && !this.compat) proof.manifest = this.manifest
    return proof
  }

  // check is true when a reader who holds this core's tree up to the start of the upgrade accepts the proof.
  async check (proof) {
    try {
      const batch = await this.verifyFrom(proof.upgrade ? proof.upgrade.start : this.length, proof)
      return !proof.upgrade || this.verifier.verify(batch, batch.signature)
    } catch {
      return false
    }
  }

  // signable is what the signer with this place in the manifest signs for the tree at length.
  async signable ({ length = this.length, fork = this.fork, key = this.key, manifest = this.manifest, signer = 0 }) {
    const { caps, Verifier } = this.pkg
    const hash = await this.treeHash(length)
    if (manifest === null || Verifier.isCompat(key, manifest)) return caps.treeSignableCompat(hash, length, fork, false)
    const context = manifest.version === 0 ? manifest.signers[signer].namespace : key
    return caps.treeSignable(context, hash, length, fork)
  }

  async reorgStart (proof) {
    return this.core.core.verifyReorg(proof)
  }

  async reorgCommit (batch) {
    return this.core.core.reorg(batch)
  }

  async verify (proof) {
    return this.core.core.verify(proof)
  }

  encodeData (proof, request) {
    return this.pkg.c.encode(this.pkg.messages.wire.data, { request, ...proof })
  }

  decodeData (buffer) {
    return this.pkg.c.decode(this.pkg.messages.wire.data, buffer)
  }

  encodeRequest (request) {
    return this.pkg.c.encode(this.pkg.messages.wire.request, request)
  }

  decodeRequest (buffer) {
    return this.pkg.c.decode(this.pkg.messages.wire.request, buffer)
  }
}

class Core11 extends Core {
  get head () { return this.core.state }

  async roots (length) {
    return this.pkg.tree.MerkleTree.getRoots(this.core.state, length)
  }

  async node (index) {
    return this.pkg.tree.MerkleTree.get(this.core.state, index)
  }

  async missingNodes (index) {
    return this.core.missingNodes(index)
  }

  async missing (node) {
    return this.pkg.tree.MerkleTree.missingNodes(this.core.state, node, this.length)
  }

  // judge is what core.verify does, without keeping anything.
  async judge (proof) {
    if (proof.fork !== this.fork) return false
    const batch = await this.pkg.tree.MerkleTree.verify(this.core.state, proof)
    if (batch.upgraded && batch.length <= this.length) await batch.downgrade()
    if (!batch.commitable()) return false
    if (batch.upgraded) this.core.core._verifyBatchUpgrade(batch, proof.manifest)
    return true
  }

  async generate (request) {
    const rx = this.core.core.storage.read(this.fork)
    const value = request.block ? rx.getBlock(request.block.index) : null
    if (value) value.catch(() => {})
    let pending = null
    try {
      pending = await this.pkg.tree.MerkleTree.proof(this.core.state, rx, request)
    } catch (err) {
      rx.destroy()
      throw err
    }
    rx.tryFlush()
    const proof = await pending.settle()
    if (value && proof.block) proof.block.value = await value
    return proof
  }

  async verifyFrom (length, proof) {
    const roots = await this.roots(length)
    const { MerkleTree } = this.pkg.tree
    const { state } = this.core
    const { fork, prologue, storage } = state
    const reader = { fork, prologue, storage, roots, length, byteLength: MerkleTree.size(roots), signature: null }
    return MerkleTree.verify(reader, proof)
  }

  async batchAt (length, fork) {
    return this.pkg.tree.MerkleTree.truncate(this.core.state, length, this.core.state.createTreeBatch(), fork)
  }

  async partialSignature (signer, from, to, signature) {
    return this.pkg.multisig.partialSignature(this.core, signer, from, to, signature)
  }
}

class Core10 extends Core {
  get head () { return this.core.core.tree }

  async roots (length) {
    return this.head.getRoots(length)
  }

  async node (index) {
    return this.head.get(index, false)
  }

  async missingNodes (index) {
    return this.head.missingNodes(2 * index)
  }

  async missing (node) {
    return this.head.missingNodes(node)
  }

  async generate (request) {
    const proof = await this.head.proof(request)
    if (proof.block) proof.block.value = await this.core.core.blocks.get(request.block.index)
    return proof
  }

  async verifyFrom (length, proof) {
    const at = await this.head.truncate(length)
    const reader = Object.create(this.head)
    Object.assign(reader, { roots: at.roots, length, byteLength: at.byteLength, signature: null })
    return reader.verify(proof)
  }

  async batchAt (length, fork) {
    return this.head.truncate(length, fork)
  }

  async partialSignature (signer, from, to, signature) {
    return this.pkg.multisig.partialSignature(this.head, signer, from, to, signature)
  }
}

function packageOf (name = '11') {
  const pkg = packages[name]
  if (!pkg) throw coded('BAD_ARGUMENT', 'package is "10" or "11", not ' + name)
  return pkg
}

// manifestOf is the package's form of a manifest: an object with hex in it, or hex of its encoding.
function manifestOf (pkg, m) {
  if (m === null || m === undefined) return null
  if (typeof m === 'string') return pkg.Verifier.createManifest(pkg.c.decode(pkg.messages.manifest, bytes(m)))
  const signers = (m.signers || []).map((s) => {
    const namespace = bytes(s.namespace)
    return { publicKey: bytes(s.publicKey), ...(namespace && { namespace }) }
  })
  const prologue = m.prologue ? { hash: bytes(m.prologue.hash), length: m.prologue.length } : null
  const linked = m.linked ? m.linked.map(bytes) : null
  return pkg.Verifier.createManifest({ ...m, signers, prologue, linked, userData: bytes(m.userData) })
}

// wrap gives a core of the package, from wherever it comes, the face.
function wrap (core, name = '11') {
  return name === '10' ? new Core10(packages[10], core) : new Core11(packages[11], core)
}

// open opens a core in a directory of its own; options that are not named here go to the package as they are.
async function open (dir, { package: name = '11', key, blockKey, ...options }) {
  const core = new (packageOf(name).Hypercore)(dir, key, { ...options, isBlockKey: blockKey })
  await core.ready()
  return wrap(core, name)
}

module.exports = { open, wrap, packageOf, manifestOf }
