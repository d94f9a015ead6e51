// An OpenID provider on a free port of 127.0.0.1, set up as a marketplace's: one public native client,
// PKCE, access tokens in JWT form for the hosts API. Anybody may sign in. It prints its issuer.
import http from 'node:http'
import Provider from 'oidc-provider'

const server = http.createServer()
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'host-agent',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
      grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
    }],
    scopes: ['openid', 'host:enroll'],
    claims: { openid: ['sub'], email: ['email'], profile: ['name'] },
    conformIdTokenClaims: false,
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: id, email: `${id}@example.com` }),
    }),
    features: {
      deviceFlow: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:hosts',
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({ scope: 'host:enroll', accessTokenFormat: 'jwt' }),
      },
    },
  })
  server.on('request', provider.callback())
  console.log(JSON.stringify({ issuer }))
})
