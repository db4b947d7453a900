// A battery of real operations by the AWS SDK for JavaScript v3, against the S3
// door at the address that is given, with a key and its secret. It ends with an
// error if any answer is wrong.
const assert = require('assert/strict')
const { Readable } = require('stream')
const { createHash, randomBytes } = require('crypto')
const { S3Client, CreateBucketCommand, DeleteBucketCommand, ListBucketsCommand, PutObjectCommand, GetObjectCommand, HeadObjectCommand, DeleteObjectCommand, DeleteObjectsCommand,
  CopyObjectCommand, ListObjectsV2Command, paginateListObjectsV2, PutBucketVersioningCommand, ListObjectVersionsCommand, GetObjectAttributesCommand, PutObjectTaggingCommand,
  GetObjectTaggingCommand, ListMultipartUploadsCommand, waitUntilObjectExists, waitUntilBucketExists } = require('@aws-sdk/client-s3')
const { Upload } = require('@aws-sdk/lib-storage')
const { getSignedUrl } = require('@aws-sdk/s3-request-presigner')
const { createPresignedPost } = require('@aws-sdk/s3-presigned-post')

const [endpoint, accessKeyId, secret] = process.argv.slice(2)
// Other servers than ours, which some of this is too much for.
const other = process.env.BEVY_S3_OTHER === 'true'
const client = (secretAccessKey, more) => new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials: { accessKeyId, secretAccessKey }, maxAttempts: 1, ...more })

async function main () {
  const s3 = client(secret)
  const Bucket = 'test-' + randomBytes(8).toString('hex')
  await assert.rejects(client(secret + 'x').send(new ListBucketsCommand({})), { name: 'SignatureDoesNotMatch' })
  await s3.send(new CreateBucketCommand({ Bucket }))
  await waitUntilBucketExists({ client: s3, maxWaitTime: 10 }, { Bucket })

  // Bodies of every kind. The SDK sends streams as chunks, with a checksum behind them.
  const bytes = randomBytes(200_000)
  const text = async (Key, more) => (await s3.send(new GetObjectCommand({ Bucket, Key, ...more }))).Body.transformToString('latin1')
  await s3.send(new PutObjectCommand({ Bucket, Key: 'string', Body: 'hällo' }))
  await s3.send(new PutObjectCommand({ Bucket, Key: 'bytes', Body: bytes, ContentType: 'x/y', Metadata: { one: '1' } }))
  for (const ChecksumAlgorithm of [undefined, 'CRC32', 'CRC32C', 'SHA1', 'SHA256']) {
    const chunks = [bytes.subarray(0, 70_000), bytes.subarray(70_000, 80_001), bytes.subarray(80_001)]
    const Key = 'stream/' + ChecksumAlgorithm
    const made = await s3.send(new PutObjectCommand({ Bucket, Key, Body: Readable.from(chunks), ContentLength: bytes.length, ChecksumAlgorithm }))
    assert.equal(made.ETag, `"${createHash('md5').update(bytes).digest('hex')}"`)
    assert.equal(await text(Key, { ChecksumMode: 'ENABLED' }), bytes.toString('latin1'))
    const { Checksum } = await s3.send(new GetObjectAttributesCommand({ Bucket, Key, ObjectAttributes: other ? ['Checksum'] : ['Checksum', 'ObjectSize', 'ETag'] }))
    const name = 'Checksum' + (ChecksumAlgorithm || 'CRC32')
    assert.equal(Checksum[name], made[name])
    if (ChecksumAlgorithm === 'SHA256') assert.equal(Checksum[name], createHash('sha256').update(bytes).digest('base64'))
  }
  await waitUntilObjectExists({ client: s3, maxWaitTime: 10 }, { Bucket, Key: 'bytes' })
  const head = await s3.send(new HeadObjectCommand({ Bucket, Key: 'bytes' }))
  assert.deepEqual([head.ContentType, head.Metadata, head.ContentLength], ['x/y', { one: '1' }, bytes.length])
  assert.equal(await text('bytes', { Range: 'bytes=10-19' }), bytes.subarray(10, 20).toString('latin1'))
  await assert.rejects(s3.send(new GetObjectCommand({ Bucket, Key: 'none' })), { name: 'NoSuchKey' })
  await assert.rejects(s3.send(new PutObjectCommand({ Bucket, Key: 'bytes', Body: 'x', IfNoneMatch: '*' })), { name: 'PreconditionFailed' })
  await s3.send(new CopyObjectCommand({ Bucket, Key: 'copy ü', CopySource: encodeURIComponent(Bucket + '/bytes') }))
  assert.equal((await s3.send(new HeadObjectCommand({ Bucket, Key: 'copy ü' }))).ETag, head.ETag)

  // Uploads in parts of a stream whose length nobody knows.
  const big = randomBytes(12 * 1024 * 1024)
  async function * pieces () { for (let i = 0; i < big.length; i += 1_000_000) yield big.subarray(i, i + 1_000_000) }
  const up = new Upload({ client: s3, params: { Bucket, Key: 'big', Body: Readable.from(pieces()) }, partSize: 5 * 1024 * 1024, queueSize: 3 })
  let told = 0
  up.on('httpUploadProgress', () => told++)
  await up.done()
  assert.equal(told, 3)
  assert.equal(createHash('sha256').update(await text('big'), 'latin1').digest('hex'), createHash('sha256').update(big).digest('hex'))
  const aborted = new Upload({ client: s3, params: { Bucket, Key: 'aborted', Body: Readable.from(pieces()) }, partSize: 5 * 1024 * 1024 })
  aborted.on('httpUploadProgress', () => aborted.abort())
  await assert.rejects(aborted.done())
  for (let tries = 0; (await s3.send(new ListMultipartUploadsCommand({ Bucket }))).Uploads?.length; tries++) assert.ok(tries < 500) // it aborts a little later
  await assert.rejects(s3.send(new HeadObjectCommand({ Bucket, Key: 'aborted' })), { name: 'NotFound' })

  let keys = []
  for await (const page of paginateListObjectsV2({ client: s3, pageSize: 3 }, { Bucket })) keys = keys.concat(page.Contents.map((o) => o.Key))
  assert.deepEqual(keys, ['big', 'bytes', 'copy ü', 'stream/CRC32', 'stream/CRC32C', 'stream/SHA1', 'stream/SHA256', 'stream/undefined', 'string'])
  const top = await s3.send(new ListObjectsV2Command({ Bucket, Delimiter: '/', Prefix: 's' }))
  assert.deepEqual([top.CommonPrefixes[0].Prefix, top.Contents[0].Key], ['stream/', 'string'])

  // What a page of the web does.
  const at = await getSignedUrl(s3, new PutObjectCommand({ Bucket, Key: 'web/put' }), { expiresIn: 60 })
  assert.equal((await fetch(at, { method: 'PUT', body: 'from a page' })).status, 200)
  const from = await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: 'web/put' }), { expiresIn: 60 })
  assert.equal(await (await fetch(from)).text(), 'from a page')
  assert.equal((await fetch(from.replace('web/put', 'web/pot'))).status, 403)
  const { url, fields } = await createPresignedPost(s3, { Bucket, Key: 'web/${filename}', Conditions: [['content-length-range', 0, 100], ['starts-with', '$Content-Type', 'text/']], Fields: { 'Content-Type': 'text/plain' }, Expires: 60 })
  const form = (body) => {
    const f = new FormData()
    for (const [name, value] of Object.entries(fields)) f.append(name, value)
    f.append('file', new Blob([body]), 'form.txt')
    return fetch(url, { method: 'POST', body: f })
  }
  assert.equal((await form('from a form')).status, 204)
  assert.equal((await form('x'.repeat(101))).status, 400)
  const posted = (await s3.send(new ListObjectsV2Command({ Bucket, Prefix: 'web/' }))).Contents.map((o) => o.Key)
  if (!other) assert.deepEqual(posted, ['web/form.txt', 'web/put'])

  await s3.send(new PutObjectTaggingCommand({ Bucket, Key: 'bytes', Tagging: { TagSet: [{ Key: 'a', Value: 'b + c' }] } }))
  assert.deepEqual((await s3.send(new GetObjectTaggingCommand({ Bucket, Key: 'bytes' }))).TagSet, [{ Key: 'a', Value: 'b + c' }])
  await s3.send(new PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status: 'Enabled' } }))
  const { VersionId } = await s3.send(new PutObjectCommand({ Bucket, Key: 'string', Body: 'two' }))
  const { DeleteMarker } = await s3.send(new DeleteObjectCommand({ Bucket, Key: 'string' }))
  assert.equal(DeleteMarker, true)
  assert.equal(await text('string', { VersionId }), 'two')

  for (;;) {
    const all = await s3.send(new ListObjectVersionsCommand({ Bucket, MaxKeys: 5 }))
    const Objects = [...all.Versions ?? [], ...all.DeleteMarkers ?? []].map(({ Key, VersionId }) => ({ Key, VersionId }))
    if (!Objects.length) break
    const gone = await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }))
    assert.equal(gone.Deleted.length, Objects.length)
  }
  await s3.send(new DeleteBucketCommand({ Bucket }))
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
