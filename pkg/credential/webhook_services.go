package credential

import (
	"net/url"
	"strings"
)

// hookService is a service that hands out webhooks.
type hookService struct {
	name string
	// hosts are its hosts; one that begins with a dot stands for all below it.
	hosts []string
	// prefix is the beginning of the paths of its webhooks.
	prefix string
	// parts is how many parts a path has at least; 0 when nothing is known of it.
	parts   int
	example string
}

// hookServices returns the services that are recognised, by the hosts and paths
// that their references give. The first one that fits is taken.
func hookServices() []hookService {
	const (
		slackExample   = `"https://hooks.slack.com/services/T…/B…/…"`
		discordExample = `"https://discord.com/api/webhooks/ID/TOKEN"`
	)
	slack := []string{"hooks.slack.com", "hooks.slack-gov.com"}
	discord := []string{"discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com"}
	return []hookService{
		{name: "slack", hosts: slack, prefix: "/services/", parts: 4, example: slackExample},
		{name: "slack", hosts: slack, parts: 3, example: slackExample},
		{name: "discord", hosts: discord, prefix: "/api/v", parts: 5, example: discordExample},
		{name: "discord", hosts: discord, parts: 4, example: discordExample},
		{name: "teams", hosts: []string{".webhook.office.com", "outlook.office.com"}, prefix: "/webhook"},
		// Teams' own are made by Power Automate today, as others are.
		{name: "powerAutomate", hosts: []string{".logic.azure.com", ".logic.azure.us", ".api.powerplatform.com"}},
		{name: "googleChat", hosts: []string{"chat.googleapis.com"}},
		{name: "webex", hosts: []string{"webexapis.com"}, prefix: "/v1/webhooks/"},
		{name: "zapier", hosts: []string{"hooks.zapier.com"}},
		{name: "ifttt", hosts: []string{"maker.ifttt.com"}},
		{name: "pagerDuty", hosts: []string{"events.pagerduty.com", "events.eu.pagerduty.com"}},
		{name: "dingTalk", hosts: []string{"oapi.dingtalk.com"}},
		{name: "feishu", hosts: []string{"open.feishu.cn", "open.larksuite.com"}},
		{name: "weCom", hosts: []string{"qyapi.weixin.qq.com"}},
	}
}

// webhookService returns the service of a URL, the zero value when it is another.
func webhookService(u *url.URL) hookService {
	for _, s := range hookServices() {
		if !strings.HasPrefix(u.Path, s.prefix) {
			continue
		}
		for _, host := range s.hosts {
			if u.Host == host || strings.HasPrefix(host, ".") && strings.HasSuffix(u.Host, host) {
				return s
			}
		}
	}
	return hookService{}
}
