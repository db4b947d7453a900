package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// A program is one of those of Debian, with what it needs to find a server.
type program struct {
	t    testing.TB
	path string
	args []string // before all others
	env  []string
	dir  string
}

// have finds a program, or skips the test. What Debian installs is taken before what a person may have of the same name.
func have(t testing.TB, s server, name string, args ...string) program {
	t.Helper()
	path := filepath.Join("/usr/bin", name)
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath(name); err != nil {
			if os.Getenv("BEVY_INTEROP") == "1" {
				t.Fatalf("BEVY_INTEROP=1, but %s is missing: install the packages awscli, s3cmd, rclone and restic", name)
			}
			t.Skipf("%s is missing", name)
		}
	}
	dir := t.TempDir()
	return program{t, path, args, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_CACHE_HOME=" + dir, "LC_ALL=C.UTF-8", "AWS_ENDPOINT_URL=" + s.URL, "AWS_ACCESS_KEY_ID=" + s.Key, "AWS_SECRET_ACCESS_KEY=" + s.Secret,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER="}, dir}
}

func (p program) command(args ...string) (string, error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, slices.Concat(p.args, args)...)
	cmd.Env, cmd.Dir = p.env, p.dir
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(p.path), strings.Join(args, " "), err, out.String(), said.String())
	}
	return out.String(), nil
}

// run runs it, and returns what it printed.
func (p program) run(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...)
	ok(p.t, err)
	return out
}

// fails wants it to fail, and to say something.
func (p program) fails(says string, args ...string) {
	p.t.Helper()
	if out, err := p.command(args...); err == nil || !strings.Contains(err.Error(), says) {
		p.t.Errorf("%s %s: got %v, %s, want %q", filepath.Base(p.path), strings.Join(args, " "), err, out, says)
	}
}

// files makes n files of many sizes in folders, the same each time.
func files(t testing.TB, dir string, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, uint64(n)))
	names := []string{"plain", "with space", "ünïcödé", "a+b&c=d", "per%cent", "quote'", "#hash", "(1)"}
	for i := range n {
		size := random.IntN(3000)
		if i%97 == 0 {
			size = 100_000 + random.IntN(100_000)
		}
		if i%50 == 49 {
			size = 0
		}
		path := filepath.Join(dir, fmt.Sprint("dir ", i%17), fmt.Sprint("d", i%5), fmt.Sprintf("%s-%d.txt", names[i%len(names)], i))
		ok(t, os.MkdirAll(filepath.Dir(path), 0o755))
		ok(t, os.WriteFile(path, some(size, byte(i)), 0o644))
	}
}

// same compares two folders, byte by byte.
func same(t testing.TB, got, want string) {
	t.Helper()
	all := func(dir string) map[string]string {
		found := map[string]string{}
		ok(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			found[strings.TrimPrefix(path, dir)] = string(text)
			return err
		}))
		return found
	}
	a, b := all(got), all(want)
	for name, text := range b {
		if x, there := a[name]; !there || x != text {
			t.Errorf("%s: %d bytes (there: %v), want %d", name, len(x), there, len(text))
		}
	}
	equal(t, "files in "+filepath.Base(got), len(a), len(b))
}

func TestAWSCommand(t *testing.T) {
	t.Parallel()
	s := up(t)
	name := bucketName()
	t.Cleanup(func() { dropBucket(t, s, name) })
	at := "s3://" + name
	aws := have(t, s, "aws", "--endpoint-url", s.URL)
	aws.run("s3", "mb", at)
	files(t, filepath.Join(aws.dir, "from"), 40)
	ok(t, os.WriteFile(filepath.Join(aws.dir, "from", "big.bin"), some(9*mib+1, 1), 0o644)) // in parts
	aws.run("s3", "sync", "--only-show-errors", "from", at+"/tree")
	aws.run("s3", "sync", "--only-show-errors", at+"/tree", "back")
	same(t, filepath.Join(aws.dir, "back"), filepath.Join(aws.dir, "from"))
	ok(t, os.RemoveAll(filepath.Join(aws.dir, "from", "dir 3")))
	out := aws.run("s3", "sync", "--no-progress", "--delete", "from", at+"/tree")
	if strings.Contains(out, "upload") || !strings.Contains(out, "delete: "+at+"/tree/dir 3/") {
		t.Errorf("a second sync with --delete: %s", out)
	}
	list := aws.run("s3", "ls", "--recursive", at)
	if strings.Contains(list, "dir 3/") || !strings.Contains(list, "tree/big.bin") {
		t.Errorf("after a sync with --delete: %s", list)
	}
	aws.run("s3", "mv", "--only-show-errors", at+"/tree/big.bin", at+"/moved.bin")
	signed := strings.TrimSpace(aws.run("s3", "presign", at+"/moved.bin"))
	if _, text := s.ask(t, "GET", signed, nil, nil); text != string(some(9*mib+1, 1)) {
		t.Errorf("a presigned address gave %d other bytes", len(text))
	}
	if long {
		aws.fails("NoSuchKey", "s3api", "get-object", "--bucket", name, "--key", "tree/big.bin", "x")
		aws.fails("NoSuchBucket", "s3", "ls", at+"x")
		if out := aws.run("s3", "ls", at+"/tree/"); !strings.Contains(out, "PRE dir 1/") || strings.Contains(out, "plain") {
			t.Errorf("a level: %s", out)
		}
		aws.run("s3api", "put-bucket-versioning", "--bucket", name, "--versioning-configuration", "Status=Enabled")
		aws.run("s3api", "put-object", "--bucket", name, "--key", "v", "--body", "back/big.bin", "--metadata", "a=b", "--content-type", "x/y", "--tagging", "k=v")
		var head struct {
			VersionId, ContentType string
			Metadata               map[string]string
		}
		ok(t, json.Unmarshal([]byte(aws.run("s3api", "head-object", "--bucket", name, "--key", "v")), &head))
		equal(t, "head-object", fmt.Sprint(head.ContentType, head.Metadata), "x/ymap[a:b]")
		aws.run("s3api", "delete-object", "--bucket", name, "--key", "v")
		aws.run("s3api", "get-object", "--bucket", name, "--key", "v", "--version-id", head.VersionId, "--range", "bytes=0-9", "part")
		for _, what := range []string{"get-bucket-location", "get-bucket-acl", "get-bucket-versioning", "list-object-versions", "list-multipart-uploads", "list-objects", "list-objects-v2", "head-bucket"} {
			aws.run("s3api", what, "--bucket", name)
		}
		aws.run("s3", "rm", "--only-show-errors", "--recursive", at)
		return
	}
	aws.run("s3", "rb", "--force", at)
}

func TestS3cmd(t *testing.T) {
	t.Parallel()
	s := up(t)
	u, err := url.Parse(s.URL)
	ok(t, err)
	name := bucketName()
	t.Cleanup(func() { dropBucket(t, s, name) })
	at := "s3://" + name
	c := have(t, s, "s3cmd", "--config=none", "--no-ssl", "--host="+u.Host, "--host-bucket="+u.Host, "--access_key="+s.Key, "--secret_key="+s.Secret, "--region=us-east-1", "--no-progress")
	ok(t, os.WriteFile(filepath.Join(c.dir, "none"), nil, 0o600))
	c.run("mb", at)
	files(t, filepath.Join(c.dir, "from"), 40)
	ok(t, os.WriteFile(filepath.Join(c.dir, "from", "big.bin"), some(11*mib, 2), 0o644))
	c.run("sync", "--multipart-chunk-size-mb=5", "from/", at+"/tree/")
	c.run("sync", at+"/tree/", "back/")
	same(t, filepath.Join(c.dir, "back"), filepath.Join(c.dir, "from"))
	c.run("put", "--mime-type=x/y", "--add-header=x-amz-meta-a:b", "from/big.bin", at+"/ü one")
	if out := c.run("info", at+"/ü one"); !strings.Contains(out, "x/y") || !strings.Contains(out, "11534336") {
		t.Errorf("info: %s", out)
	}
	c.run("cp", at+"/ü one", at+"/two")
	c.run("mv", at+"/two", at+"/three")
	c.run("get", "--continue", at+"/three", "three")
	if got, err := os.ReadFile(filepath.Join(c.dir, "three")); err != nil || string(got) != string(some(11*mib, 2)) {
		t.Errorf("got %d other bytes, %v", len(got), err)
	}
	if out := c.run("ls", at); !strings.Contains(out, at+"/tree/") || !strings.Contains(out, "DIR") || !strings.Contains(out, at+"/three") {
		t.Errorf("ls: %s", out)
	}
	if out := c.run("du", at); !strings.Contains(out, "43 objects") {
		t.Errorf("du: %s", out)
	}
	if !s.Other {
		c.run("setacl", "--acl-public", at+"/three")
		if res, _ := s.ask(t, "GET", s.URL+"/"+name+"/three", nil, nil); res.StatusCode != 200 {
			t.Errorf("a public object: %s", res.Status)
		}
	}
	if long {
		c.run("signurl", at+"/three", "+60")
		c.run("multipart", at)
		c.run("modify", "--add-header=x-amz-meta-c:d", at+"/three")
		c.run("del", "--recursive", "--force", at+"/tree")
	}
	c.fails("does not exist", "get", at+"/none", "x")
	c.run("rb", "--recursive", "--force", at)
}

func TestRclone(t *testing.T) {
	t.Parallel()
	s := up(t)
	name := bucketName()
	t.Cleanup(func() { dropBucket(t, s, name) })
	// The provider "Other" is what there is for servers that rclone does not know.
	r := have(t, s, "rclone", "--config=", "--retries=1", "--low-level-retries=1", "--checksum", "--transfers=16", "--checkers=16", "--fast-list", "--s3-list-chunk=300")
	r.env = append(r.env, "RCLONE_CONFIG_D_TYPE=s3", "RCLONE_CONFIG_D_PROVIDER=Other", "RCLONE_CONFIG_D_ENV_AUTH=true", "RCLONE_CONFIG_D_ENDPOINT="+s.URL, "RCLONE_CONFIG_D_UPLOAD_CUTOFF=8Mi", "RCLONE_CONFIG_D_CHUNK_SIZE=5Mi")
	r.run("mkdir", "D:"+name)
	from := filepath.Join(r.dir, "from")
	files(t, from, 2000)
	ok(t, os.WriteFile(filepath.Join(from, "big.bin"), some(17*mib, 3), 0o644))
	r.run("sync", "from", "D:"+name+"/tree")
	r.run("check", "--download=false", "from", "D:"+name+"/tree")
	ok(t, os.RemoveAll(filepath.Join(from, "dir 2")))
	ok(t, os.WriteFile(filepath.Join(from, "new"), []byte("new"), 0o644))
	r.run("sync", "from", "D:"+name+"/tree")
	r.run("check", "from", "D:"+name+"/tree")
	r.run("copy", "D:"+name+"/tree", "back")
	same(t, filepath.Join(r.dir, "back"), from)
	if long {
		r.run("check", "--download", "from", "D:"+name+"/tree")
		r.run("moveto", "D:"+name+"/tree/big.bin", "D:"+name+"/big.bin")
		r.run("copyto", "D:"+name+"/big.bin", "D:"+name+"/tree/big.bin")
		r.run("sync", "D:"+name+"/tree", "D:"+name+"/other")
		r.run("check", "D:"+name+"/tree", "D:"+name+"/other")
		r.run("purge", "D:"+name+"/tree")
		r.run("cleanup", "D:"+name)
	}
	var size struct{ Count, Bytes int64 }
	ok(t, json.Unmarshal([]byte(r.run("size", "--json", "D:"+name)), &size))
	if size.Count < 1000 {
		t.Errorf("there are %d objects", size.Count)
	}
	r.run("purge", "D:"+name)
}

func TestRestic(t *testing.T) {
	t.Parallel()
	s := up(t)
	name := bucketName()
	t.Cleanup(func() { dropBucket(t, s, name) })
	r := have(t, s, "restic", "--quiet", "--no-cache", "--repo=s3:"+s.URL+"/"+name+"/repo")
	r.env = append(r.env, "RESTIC_PASSWORD=x", "GOGC=50")
	from := filepath.Join(r.dir, "from")
	files(t, from, 300)
	ok(t, os.WriteFile(filepath.Join(from, "big.bin"), some(24*mib, 4), 0o644))
	r.run("init")
	r.run("backup", "from")
	ok(t, os.RemoveAll(filepath.Join(from, "dir 4")))
	ok(t, os.WriteFile(filepath.Join(from, "big.bin"), some(9*mib, 5), 0o644))
	r.run("backup", "from")
	r.run("forget", "--keep-last", "1", "--prune")
	r.run("check", "--read-data")
	r.run("restore", "latest", "--target", "back")
	same(t, filepath.Join(r.dir, "back", "from"), from)
	var snapshots []any
	ok(t, json.Unmarshal([]byte(r.run("snapshots", "--json")), &snapshots))
	equal(t, "snapshots", len(snapshots), 1)
	if len(keys(t, s.client(), &s3.ListObjectsV2Input{Bucket: &name})) < 5 {
		t.Error("the repository is somewhere else")
	}
}

func TestSDKForJavaScript(t *testing.T) {
	t.Parallel()
	s := up(t)
	root, err := nodepeer.Root()
	ok(t, err)
	dir := filepath.Join(root, "interop", "node-doors")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@aws-sdk", "client-s3")); err != nil {
		if os.Getenv("BEVY_INTEROP") == "1" {
			t.Fatalf("BEVY_INTEROP=1, but the packages of interop/node-doors are missing: %v; run `npm ci` there", err)
		}
		t.Skipf("the packages of interop/node-doors are missing: %v; run `npm ci` there", err)
	}
	script := program{t: t, path: "node", args: []string{"s3-sdk.js"}, env: append(os.Environ(), "NODE_NO_WARNINGS=1", fmt.Sprint("BEVY_S3_OTHER=", s.Other)), dir: dir}
	script.run(s.URL, s.Key, s.Secret)
}
