package bridge

import (
	"net/http"
	"path"
	"strings"
)

// types are those of files by the ends of their names. The machine's own table is
// not asked: the same drive is the same everywhere.
var types = func() map[string]string {
	out := map[string]string{}
	for kind, ends := range map[string]string{
		"text/html; charset=utf-8":                 "html htm",
		"text/css; charset=utf-8":                  "css",
		"text/javascript; charset=utf-8":           "js mjs cjs",
		"text/plain; charset=utf-8":                "txt text log conf ini cfg toml go rs c h cc cpp hpp py rb sh ts tsx jsx java kt swift sql diff patch srt gitignore",
		"text/markdown; charset=utf-8":             "md markdown",
		"text/csv; charset=utf-8":                  "csv",
		"text/tab-separated-values; charset=utf-8": "tsv",
		"text/calendar; charset=utf-8":             "ics",
		"text/vcard; charset=utf-8":                "vcf",
		"text/vtt; charset=utf-8":                  "vtt",
		"text/yaml; charset=utf-8":                 "yaml yml",
		"application/json":                         "json map geojson",
		"application/jsonl":                        "jsonl ndjson",
		"application/manifest+json":                "webmanifest",
		"application/xml":                          "xml xsl",
		"application/xhtml+xml":                    "xhtml xht",
		"application/rss+xml":                      "rss",
		"application/atom+xml":                     "atom",
		"application/wasm":                         "wasm",
		"application/pdf":                          "pdf",
		"application/rtf":                          "rtf",
		"application/epub+zip":                     "epub",
		"application/zip":                          "zip",
		"application/gzip":                         "gz tgz",
		"application/zstd":                         "zst",
		"application/x-tar":                        "tar",
		"application/x-bzip2":                      "bz2",
		"application/x-xz":                         "xz",
		"application/x-7z-compressed":              "7z",
		"application/vnd.rar":                      "rar",
		"application/octet-stream":                 "bin exe dll so dylib dmg iso img deb rpm msi apk",
		"application/vnd.sqlite3":                  "sqlite sqlite3",
		"application/msword":                       "doc",
		"application/vnd.ms-excel":                 "xls",
		"application/vnd.ms-powerpoint":            "ppt",
		"application/vnd.openxmlformats-officedocument.wordprocessingml.document":   "docx",
		"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet":         "xlsx",
		"application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
		"application/vnd.oasis.opendocument.text":                                   "odt",
		"application/vnd.oasis.opendocument.spreadsheet":                            "ods",
		"application/vnd.oasis.opendocument.presentation":                           "odp",
		"image/png":                     "png",
		"image/apng":                    "apng",
		"image/jpeg":                    "jpg jpeg jpe",
		"image/gif":                     "gif",
		"image/webp":                    "webp",
		"image/avif":                    "avif",
		"image/heic":                    "heic",
		"image/heif":                    "heif",
		"image/jxl":                     "jxl",
		"image/bmp":                     "bmp",
		"image/tiff":                    "tif tiff",
		"image/svg+xml":                 "svg",
		"image/x-icon":                  "ico",
		"audio/mpeg":                    "mp3",
		"audio/mp4":                     "m4a m4b",
		"audio/aac":                     "aac",
		"audio/flac":                    "flac",
		"audio/ogg":                     "oga ogg opus",
		"audio/wav":                     "wav",
		"audio/midi":                    "mid midi",
		"video/mp4":                     "mp4 m4v",
		"video/webm":                    "webm",
		"video/ogg":                     "ogv",
		"video/quicktime":               "mov",
		"video/x-matroska":              "mkv",
		"video/x-msvideo":               "avi",
		"video/mpeg":                    "mpg mpeg",
		"application/vnd.apple.mpegurl": "m3u8",
		"application/dash+xml":          "mpd",
		"font/woff":                     "woff",
		"font/woff2":                    "woff2",
		"font/ttf":                      "ttf",
		"font/otf":                      "otf",
		"model/gltf+json":               "gltf",
		"model/gltf-binary":             "glb",
	} {
		for _, end := range strings.Fields(ends) {
			out["."+end] = kind
		}
	}
	return out
}()

// typeByName returns the type that the end of a name stands for, or nothing.
func typeByName(name string) string {
	end := path.Ext(name)
	if kind := types[end]; kind != "" || end == "" {
		return kind
	}
	return types[strings.ToLower(end)]
}

// sniffed is how much of a file is looked at for its type.
const sniffed = 512

// typeByContent returns the type of a file that begins with data.
func typeByContent(data []byte) string {
	return http.DetectContentType(data[:min(len(data), sniffed)])
}

// compressible reports whether files of a type get smaller when compressed.
func compressible(kind string) bool {
	kind, _, _ = strings.Cut(kind, ";")
	if strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml") {
		return true
	}
	switch kind {
	case "application/json", "application/jsonl", "application/xml", "application/wasm", "application/vnd.apple.mpegurl",
		"application/rtf", "font/ttf", "font/otf", "image/bmp", "image/x-icon", "model/gltf-binary", "application/vnd.sqlite3":
		return true
	}
	return false
}
