package credential

import (
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The fields that a document is read into, by their names in JSON spelling.
const (
	awsKeyID      = "accessKeyId"
	awsSecret     = "secretAccessKey"
	awsToken      = "sessionToken"
	awsRegion     = "region"
	awsExpiration = "expiration"
	awsDocument   = "document"
)

// awsFound is a value of a document.
type awsFound struct {
	value string
	// place is the path of the value below the kind's message.
	place string
}

const awsWantDocument = "must hold an access key id and a secret access key, as the JSON of aws iam create-access-key or of STS, " +
	"the CSV of the console, a profile of ~/.aws/credentials, export lines, or the two on lines of their own; "

// awsNames are how the values are called wherever people copy them from: with
// and without AWS before them, in one word, with underscores or with spaces.
var awsNames = []struct {
	field string
	name  string
}{
	{awsSecret, `(?:aws[_. -]?)?secret[_ -]?(?:access[_ -]?)?key`},
	{awsKeyID, `(?:aws[_. -]?)?access[_ -]?key(?:[_ -]?id)?`},
	{awsToken, `(?:aws[_. -]?)?(?:(?:session|security)[_ -]?)?token`},
	{awsRegion, `(?:aws[_. -]?)?(?:default[_ -]?)?region`},
	{awsExpiration, awsExpirationName},
}

var (
	// awsAssignment finds a name with its value: after = or : (with what "aws
	// configure" shows between), or after a space as setx and "aws configure set"
	// have it. Go's expressions take time linear in the text.
	awsAssignment = regexp.MustCompile(`(?i)(?:^|[^a-z0-9_])(?:` + awsAnyName() + `)["']?` +
		`(?:[ \t]*(?:\[[^\]\n]*\][ \t]*)?(?:=>|:=|[=:])[ \t]*|([ \t]+))` +
		`(?:"([^"\n]*)"|'([^'\n]*)'|(` + awsSpacedTime + `)|([^\s"',;{}&|()\[\]=:][^\s"',;{}&|()\[\]]*))`)
	awsColumn  = regexp.MustCompile(`(?i)^(?:` + awsAnyName() + `)$`)
	awsProfile = regexp.MustCompile(`^\[[A-Za-z0-9 _./@+:-]{1,200}\]$`)
	// awsIndirect finds what profiles have in place of a key.
	awsIndirect = regexp.MustCompile(`(?im)^[ \t]*(role_arn|credential_process|credential_source|sso_session|sso_start_url|web_identity_token_file)[ \t]*=`)
	awsKeyForm  = regexp.MustCompile(`^(?:` + awsPermanent + `|` + awsTemporary + `)[A-Z0-9]{12,124}$`)
)

// awsMaxSettings is far more than any profile or shell file has. What has more is
// not searched to its end.
const awsMaxSettings = 1000

// awsAnyName has one group for each of awsNames.
func awsAnyName() string {
	var all []string
	for _, n := range awsNames {
		all = append(all, "("+n.name+")")
	}
	return strings.Join(all, "|")
}

// awsReader collects the values of one document.
type awsReader struct {
	found   map[string]awsFound
	problem string
}

// awsReadDocument returns what a document holds, by field; or what is wrong with
// it as a whole.
func awsReadDocument(text string) (map[string]awsFound, string) {
	// As it is, or wrapped once in base64 or quotes.
	for range 2 {
		text = trimPasted(text)
		d := &awsReader{found: map[string]awsFound{}}
		if d.csv(text) || d.assignments(text) || d.plain(text) {
			return d.found, d.problem
		}
		inner, ok := awsUnwrap(text)
		if !ok {
			break
		}
		text = inner
	}
	return nil, awsWantDocument + "it has none of these forms"
}

// add keeps a value. The same one twice is no harm; another is.
func (d *awsReader) add(field, value, place string) {
	value = awsUnquote(value)
	if strings.Contains(value, `\`) {
		// Some programs escape the slashes of JSON.
		var unescaped string
		if json.Unmarshal([]byte(`"`+value+`"`), &unescaped) == nil {
			value = unescaped
		}
	}
	switch field {
	case awsRegion:
		value = awsNormalRegion(value)
	case awsExpiration:
		value = awsNormalExpiration(value)
	}
	before, seen := d.found[field]
	switch {
	case value == "" || value == "null" || value == "None":
	case seen && before.value != value && field == awsRegion:
		d.fail("it names two regions: remove one of them")
	case seen && before.value != value && field == awsExpiration:
		d.fail("it names two times at which the credentials end: remove one of them")
	case seen && before.value != value:
		d.fail("it holds several keys: paste only one of them")
	case !seen:
		// The text is kept for as long as a part of it is.
		d.found[field] = awsFound{strings.Clone(value), strings.Clone(place)}
	}
}

func (d *awsReader) fail(problem string) {
	if d.problem == "" {
		d.problem = awsWantDocument + problem
	}
}

// csv reads a file that the console gave, which has had several headers, or what
// a spreadsheet made of it. It says whether the text is one.
func (d *awsReader) csv(text string) bool {
	header, _, _ := strings.Cut(text, "\n")
	if len(header) > 1024 {
		return false
	}
	for _, comma := range ",;\t" {
		if !strings.ContainsRune(header, comma) {
			continue
		}
		reader := csv.NewReader(strings.NewReader(text))
		reader.Comma, reader.LazyQuotes, reader.FieldsPerRecord, reader.TrimLeadingSpace = comma, true, -1, true
		columns, err := reader.Read()
		if err != nil {
			continue
		}
		fields := make([]string, len(columns))
		for i, c := range columns {
			columns[i] = trimPasted(c)
			if m := awsColumn.FindStringSubmatch(columns[i]); m != nil {
				fields[i] = awsNames[slices.IndexFunc(m[1:], func(s string) bool { return s != "" })].field
			}
		}
		if !slices.Contains(fields, awsKeyID) || !slices.Contains(fields, awsSecret) {
			continue
		}
		d.rows(reader, columns, fields)
		return true
	}
	return false
}

func (d *awsReader) rows(reader *csv.Reader, columns, fields []string) {
	row, err := reader.Read()
	if err != nil {
		d.fail("it has a header and no line below it")
		return
	}
	if next, err := reader.Read(); err == nil && slices.ContainsFunc(next, func(s string) bool { return trimPasted(s) != "" }) {
		d.fail("it holds several keys: paste the header and one line")
		return
	}
	for i, value := range row[:min(len(row), len(fields))] {
		if fields[i] != "" {
			d.add(fields[i], value, awsDocument+"."+columns[i])
		}
	}
}

// straightQuotes replaces those that word processors and web pages make, and
// removes the escapes of JSON inside a string.
var straightQuotes = strings.NewReplacer("“", `"`, "”", `"`, "„", `"`, "‘", "'", "’", "'", `\"`, `"`)

// assignments reads JSON, profiles, lines for shells, YAML and whatever else has
// names with values behind them. It says whether there are any.
func (d *awsReader) assignments(text string) bool {
	var kept strings.Builder
	profiles := 0
	for line := range strings.Lines(straightQuotes.Replace(text)) {
		trimmed := strings.TrimSpace(line)
		if awsProfile.MatchString(trimmed) {
			profiles++
		}
		if !awsIsComment(trimmed) {
			kept.WriteString(line)
		}
	}
	settings := awsAssignment.FindAllStringSubmatch(kept.String(), awsMaxSettings+1)
	if len(settings) > awsMaxSettings {
		d.fail("it holds more than " + thousands(awsMaxSettings) + " settings: paste only the profile, or the lines, that are meant")
		return true
	}
	for _, m := range settings {
		names, rest := m[1:1+len(awsNames)], m[1+len(awsNames):]
		i := slices.IndexFunc(names, func(s string) bool { return s != "" })
		name, space, value := names[i], rest[0], rest[1]+rest[2]+rest[3]+rest[4]
		// A space is enough only after a name that is no word of a sentence.
		if space != "" && !strings.HasPrefix(strings.ToLower(name), "aws_") {
			continue
		}
		d.add(awsNames[i].field, value, awsDocument+"."+name)
	}
	indirect := awsIndirect.FindStringSubmatch(kept.String())
	switch {
	case profiles > 1:
		d.fail("it holds " + strconv.Itoa(profiles) + " profiles: paste only the one that is meant")
	case indirect != nil:
		d.fail("it is a profile with " + indirect[1] + ", which gets its key elsewhere: " +
			"store that key, or use the kind awsAssumeRole or awsRole")
	}
	_, hasID := d.found[awsKeyID]
	_, hasSecret := d.found[awsSecret]
	if !hasID && !hasSecret {
		delete(d.found, awsToken)
		delete(d.found, awsRegion)
		delete(d.found, awsExpiration)
	}
	return d.problem != "" || hasID || hasSecret
}

// awsIsComment says whether a line means nothing: a comment of a profile, a shell
// or a batch file, or the fence around a block of code.
func awsIsComment(line string) bool {
	for _, begin := range []string{"#", ";", "//", "::", "REM ", "rem ", "```"} {
		if strings.HasPrefix(line, begin) {
			return true
		}
	}
	return false
}

// plain reads two or three values without names.
func (d *awsReader) plain(text string) bool {
	values := strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" \t\r\n,;:|\"'", c) })
	if len(values) == 2 && awsKeyForm.MatchString(values[1]) && !awsKeyForm.MatchString(values[0]) {
		values[0], values[1] = values[1], values[0]
	}
	if len(values) < 2 || len(values) > 3 || !awsKeyForm.MatchString(values[0]) {
		return false
	}
	for i, value := range values {
		d.add([]string{awsKeyID, awsSecret, awsToken}[i], value, awsDocument)
	}
	return true
}

// awsUnwrap removes the quotes of a JSON string, or decodes base64.
func awsUnwrap(text string) (string, bool) {
	var inner string
	if strings.HasPrefix(text, `"`) && json.Unmarshal([]byte(text), &inner) == nil {
		return inner, true
	}
	joined := strings.Join(strings.Fields(text), "")
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if raw, err := e.DecodeString(joined); err == nil && len(raw) > 0 && utf8.Valid(raw) {
			return string(raw), true
		}
	}
	return "", false
}
