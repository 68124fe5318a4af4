package credential

import credentialv1 "github.com/credstore/credstore/gen/go/credential/v1"

// oci is an API signing key of an Oracle Cloud user.
var oci = behaviour[*credentialv1.Oci]{
	check: func(m *credentialv1.Oci, r *report) {
		read, keyFile := readOciDocument(m, r)
		for _, f := range []struct {
			name  string
			value *string
			want  string
			no    test
		}{
			{"tenancy", &m.Tenancy, `the tenancy's OCID, "ocid1.tenancy.…"`, ociNoID("tenancy")},
			{"user", &m.User, `the user's OCID, "ocid1.user.…"`, ociNoID("user")},
			{"region", &m.Region, `a region's identifier, as "eu-frankfurt-1"`, ociNoRegion},
		} {
			if *f.value = trimPasted(*f.value); *f.value == "" && !read {
				continue
			}
			r.check(f.name, *f.value, f.want, isEmpty, f.no)
		}
		fingerprint := ""
		if (read && !keyFile) || m.GetPrivateKeyPem() != "" {
			fingerprint = checkOciKey(m, r)
		}
		m.Fingerprint = ociNormalFingerprint(m.GetFingerprint())
		switch {
		case m.GetFingerprint() == "":
			m.Fingerprint = fingerprint
		case !ociFingerprint.MatchString(m.GetFingerprint()):
			r.add("fingerprint", "must be the MD5 fingerprint of the key, 16 pairs of hexadecimal digits with colons between; it is not")
		case fingerprint != "" && fingerprint != m.GetFingerprint():
			r.add("fingerprint", "must be that of privateKeyPem; it is another key's, so paste the key that belongs to it, or leave it empty")
		}
	},
	facts: func(m *credentialv1.Oci) map[string]string {
		return map[string]string{
			"tenancy": m.GetTenancy(), "user": m.GetUser(), "fingerprint": m.GetFingerprint(), "region": m.GetRegion(),
		}
	},
}
