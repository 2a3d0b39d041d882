# syntax=docker/dockerfile:1
# A comment, and behind it no directive counts any more.
# escape=`
FROM python:3.12-slim
WORKDIR /srv/my app
ADD requirements.txt .
RUN pip install \
    # why: a wheel of ours

    -r requirements.txt && \
    true
ENV A=1 B="two words" C=three\ words D='$kept'
ENV OLD of old
LABEL "com.example.title"="a \"quoted\" title"
EXPOSE 80 443/tcp 9000-9010/udp
VOLUME ["/data", "/log"]
VOLUME /one /two
USER app:app
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD ["curl", "-f", "localhost"]
SHELL ["/bin/bash", "-c"]
ENTRYPOINT ["python3"]
CMD python3 -m app
CMD [ "$HOME" = x ]
