// The search of the site runs in a worker, and browsers start none for a page that was opened from a folder.
// There this takes its place: an iframe that runs the worker's script.
if (location.protocol === 'file:') {
  const load = (page, url) =>
    new Promise((done, failed) => {
      const script = page.createElement('script')
      script.onload = done
      script.onerror = () => failed(new Error(`not loaded: ${url}`))
      script.src = url
      page.head.append(script)
    })

  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement('iframe')
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent('message', { data }))
      this.inside.importScripts = (...urls) =>
        urls.reduce((before, each) => before.then(() => load(this.inside.document, each)), Promise.resolve())
      this.ready = load(this.inside.document, url)
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent('message', { data })))
    }

    terminate() {
      this.inside.frameElement.remove()
    }
  }
}
