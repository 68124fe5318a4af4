package awstest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// serveIMDS answers as the instance metadata service does when version 1 is
// switched off.
// Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
func (s *Server) serveIMDS(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	if r.URL.Path == "/latest/api/token" {
		seconds, err := strconv.Atoi(r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		switch {
		case r.Method != http.MethodPut:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.Header.Get("X-Forwarded-For") != "":
			w.WriteHeader(http.StatusForbidden)
		case err != nil || seconds < 1 || seconds > 21600:
			w.WriteHeader(http.StatusBadRequest)
		default:
			token := random(40)
			s.imdsTokens[token] = s.now().Add(time.Duration(seconds) * time.Second)
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", strconv.Itoa(seconds))
			_, _ = io.WriteString(w, token)
		}
		return
	}
	if s.now().After(s.imdsTokens[r.Header.Get("X-Aws-Ec2-Metadata-Token")]) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/latest/meta-data/iam/security-credentials/")
	if !ok || s.instance == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, role := parts(s.instance.ARN)
	switch name {
	case "":
		_, _ = io.WriteString(w, role)
	case role:
		p := s.session(s.instance, "i-0123456789abcdef0", 6*time.Hour)
		_ = json.NewEncoder(w).Encode(map[string]string{
			"Code": "Success", "LastUpdated": s.now().UTC().Format(time.RFC3339), "Type": "AWS-HMAC",
			"AccessKeyId": p.key.ID, "SecretAccessKey": p.key.Secret, "Token": p.key.Token, "Expiration": p.key.End.UTC().Format(time.RFC3339),
		})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// containerEndpoint is what a container or pod is offered.
type containerEndpoint struct {
	role          string
	authorization string
	path          string
}

// Task gives the server's container or pod a role, at a path of Container, for who
// sends the authorization.
func (s *Server) Task(roleARN, path, authorization string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.container = containerEndpoint{roleARN, authorization, path}
}

// serveContainer answers as the agents of ECS and of EKS do.
// Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
func (s *Server) serveContainer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	role := s.roles[s.container.role]
	switch {
	case role == nil || r.Method != http.MethodGet || r.URL.Path != s.container.path:
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]string{"code": "NotFound", "message": "there are no such credentials"})
	case r.Header.Get("Authorization") != s.container.authorization:
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"code": "Unauthorized", "message": "the authorization is not the task's"})
	default:
		p := s.session(role, "task", time.Hour)
		_ = json.NewEncoder(w).Encode(map[string]string{
			"RoleArn": role.ARN, "AccessKeyId": p.key.ID, "SecretAccessKey": p.key.Secret, "Token": p.key.Token,
			"Expiration": p.key.End.UTC().Format(time.RFC3339),
		})
	}
}

// errNoToken says that a token is not one that EKS takes.
var errNoToken = errors.New("input token was not properly formatted")
